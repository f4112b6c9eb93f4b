package sidecar

import (
	"math"
	"os"
	"runtime/debug"
)

// SlackBytes is how much the heap may grow beyond what it would by itself before garbage is collected.
const SlackBytes = 64 << 20

// newSlack is memory that nobody writes to, so that the system never provides it: it only counts. The collector runs when the heap has
// doubled, which the proxy's small heap does hundreds of times a second under load; with this it runs a few times. The caller keeps it. An
// operator who has set GOGC has decided otherwise; GOMEMLIMIT is moved by as much, because it would count what is not there.
func newSlack() []byte {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64-SlackBytes {
		debug.SetMemoryLimit(limit + SlackBytes)
	}
	return make([]byte, SlackBytes)
}
