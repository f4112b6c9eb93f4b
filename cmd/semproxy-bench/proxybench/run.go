package proxybench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/semproxy/semproxy/proxy/identity"
)

// Names of paths: the one without a proxy, and the one that is measured.
const (
	Direct   = "direct"
	Semproxy = "semproxy"
)

// What a row has measured.
const (
	Throughput  = "throughput"   // as many requests as connections allow
	HalfLoad    = "half load"    // half as many requests per second as semproxy could answer
	FirstByte   = "first byte"   // of a stream, one request at a time
	IdleStreams = "idle streams" // that have begun and wait
)

// Options say what is measured.
type Options struct {
	Engine                 string // the program whose command proxy-engine is the engine's stand-in
	Semproxy, Nginx, Caddy string // programs; empty: left out
	Before                 string // an earlier semproxy, for comparison; empty: none

	Connections []int
	Think       []time.Duration // how long the engine takes for an answer
	Time        time.Duration   // of each measurement, for each path
	Streams     int             // idle ones; 0: none
	Hold        time.Duration   // how long they are idle
	PromptBytes int             // of a request
	Dir         string          // for files; the caller removes it
}

// Machine is what the figures were taken on.
type Machine struct {
	OS, Arch, Processor string
	Cores               int
	Load                string // average of the minute before
	OpenFiles           int    // most per process
}

// ThisMachine describes it.
func ThisMachine() Machine {
	return Machine{runtime.GOOS, runtime.GOARCH, processor(), runtime.NumCPU(), loadAverage(), openFiles()}
}

// Row is one measurement of one path. What was not measured is 0.
type Row struct {
	Measure     string        `json:"measure"`
	Path        string        `json:"path"`
	Connections int           `json:"connections,omitempty"`
	Think       time.Duration `json:"think_ns"`
	Requests    int           `json:"requests,omitempty"`
	Broken      int           `json:"broken_answers,omitempty"` // of nginx and Caddy; one of semproxy's ends the run
	Rate        float64       `json:"requests_per_second,omitempty"`
	Ratio       float64       `json:"ratio_to_direct,omitempty"` // the median of the turns
	P50         time.Duration `json:"p50_ns,omitempty"`
	P99         time.Duration `json:"p99_ns,omitempty"`
	AddedP50    time.Duration `json:"added_p50_ns,omitempty"` // to the direct path's
	AddedP99    time.Duration `json:"added_p99_ns,omitempty"`
	CPU         time.Duration `json:"cpu_per_request_ns,omitempty"` // of the proxy's processes

	Streams   int   `json:"streams,omitempty"`
	Before    int64 `json:"memory_before_bytes,omitempty"` // of the proxy's processes, anonymous and resident
	Open      int64 `json:"memory_open_bytes,omitempty"`   // when all streams have begun
	After     int64 `json:"memory_after_bytes,omitempty"`  // when they have been idle for a while
	PerStream int64 `json:"bytes_per_stream,omitempty"`
}

func (o *Options) check() error {
	switch {
	case len(o.Connections) == 0 || slices.Min(o.Connections) < 1:
		return errors.New("connections must be given and be positive")
	case len(o.Think) == 0 || slices.Min(o.Think) < 0:
		return errors.New("the engine's time must be given and not be negative")
	case o.Time <= 0 || o.Hold < 0 || o.Streams < 0 || o.PromptBytes < 0:
		return errors.New("times, streams and bytes of the prompt must be positive")
	case o.Semproxy == "" || o.Engine == "":
		return errors.New("the programs are missing: semproxy, and this one, which is the engine's stand-in")
	}
	if most := (openFiles() - 200) / 2; o.Streams > most { // a proxy has two connections for each
		return fmt.Errorf("%d streams are more than the %d that this machine's limit of open files allows", o.Streams, most)
	}
	return nil
}

// MostStreams is how many idle streams the limit of open files allows.
func MostStreams() int { return (openFiles() - 200) / 2 }

// Run measures, and reports as it goes.
func Run(ctx context.Context, o Options, report func(Row)) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // closes connections that are left
	defer cancel()
	key := identity.NewKey()
	p := &processes{dir: o.Dir}
	defer p.stop()
	paths, err := p.open(ctx, &o, key)
	if err != nil {
		return err
	}
	b := &bench{o: o, key: key, paths: paths, report: report}
	if err := errors.Join(b.throughput(ctx)); err != nil {
		return err
	}
	if err := b.halfLoad(ctx); err != nil {
		return err
	}
	if err := b.firstByte(ctx); err != nil {
		return err
	}
	return b.idle(ctx)
}

// bench is a run under way.
type bench struct {
	o      Options
	key    string
	paths  []path
	report func(Row)
}

func (b *bench) request(stream bool, headers ...string) []byte {
	return prepared(b.key, b.o.PromptBytes, stream, headers...)
}

func thinking(d time.Duration) string { return headerThink + ": " + d.String() }

// median sorts x.
func median[T float64 | time.Duration](x []T) T { return percentile(x, 50) }

// percentile sorts x.
func percentile[T float64 | time.Duration](x []T, p int) T {
	if len(x) == 0 {
		return 0
	}
	slices.Sort(x)
	return x[min(len(x)-1, len(x)*p/100)]
}
