package shm

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// children are what a test runs in a process of its own: this program again, with childEnv set.
var children = map[string]func() int{}

const childEnv = "SHM_TEST_CHILD"

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childEnv)]; child != nil {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}
