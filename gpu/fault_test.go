//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/gpu/cuda"
	"github.com/semproxy/semproxy/gpu/fake"
)

// faulty is the fake driver and its controls, healed at the end.
func faulty(t *testing.T) (path string, c *fake.Control) {
	t.Helper()
	path = fake.Library(t)
	c = fake.Controls(t, path)
	t.Cleanup(func() {
		c.Heal()
		c.Seed(0)
		if n := c.Stat(fake.Violations); n != 0 {
			t.Errorf("%d calls that a real driver would refuse", n)
		}
	})
	return path, c
}

func smallPage(seed uint64) *compress.Input {
	return random(seed, shape{1, 1, 80, 16, compress.F32, compress.Rope{Type: "default", Theta: 10000, Dim: 16}})
}

// counter counts fallbacks by reason.
type counter struct {
	mu        sync.Mutex
	reasons   map[string]int
	lost      atomic.Int64
	recovered chan struct{}
}

func (c *counter) observer() gpu.Observer {
	c.reasons, c.recovered = map[string]int{}, make(chan struct{}, 100)
	return gpu.Observer{
		Fallback: func(reason string, _ error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.reasons[reason]++
		},
		Lost:      func(error) { c.lost.Add(1) },
		Recovered: func() { c.recovered <- struct{}{} },
	}
}

func (c *counter) of(reason string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reasons[reason]
}

// What keeps a device from being opened is said, and leaves nothing behind.
func TestOpenSaysWhyThereIsNoDevice(t *testing.T) {
	path, control := faulty(t)
	cpu := onCPU(t)
	for kind, want := range map[string]error{
		"driver": cuda.ErrOldDriver, "init": nil, "alloc": nil, "hostalloc": nil, "module": nil, "old": nil, "launch": nil, "kernel": nil,
	} {
		control.Fault(kind, 0, 0)
		c, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20})
		control.Heal()
		if err == nil {
			c.Close()
			t.Errorf("%s: opened", kind)
		} else if want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", kind, err, want)
		}
		for _, s := range []fake.Stat{fake.DeviceBytes, fake.HostBytes, fake.Streams, fake.Events, fake.Modules, fake.Contexts} {
			if n := control.Stat(s); n != 0 {
				t.Errorf("%s: statistic %d is %d after the failure, want 0", kind, s, n)
			}
		}
	}
	if _, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20, Device: 7}); err == nil {
		t.Error("device 7 of 1 was opened")
	}
	if _, err := gpu.Open(cpu, gpu.Options{Library: "/nowhere/libcuda.so.1"}); !errors.Is(err, cuda.ErrNoDriver) {
		t.Errorf("got %v, want %v", err, cuda.ErrNoDriver)
	}
}

// A page whose batch fails is computed on the CPU; the next one is on the device again, unless that was lost.
func TestAFailedBatchIsRecomputed(t *testing.T) {
	path, control := faulty(t)
	cpu := onCPU(t)
	for _, row := range []struct {
		kind, reason string
		lost         bool
	}{{"launch", "launch", false}, {"copy", "launch", false}, {"kernel", "lost", true}, {"lost", "lost", true}} {
		var count counter
		dev, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20, Latency: -1, Observer: count.observer()}.Hurry())
		if err != nil {
			t.Fatal(err)
		}
		opt := compress.Semantic()
		opt.Ratio = 0.6
		// At each point of a batch.
		for after := range 12 {
			control.Fault(row.kind, 3*after, 1)
			for range 2 {
				same(t, fmt.Sprintf("%s after %d", row.kind, after), cpu, dev, smallPage(uint64(after)), &opt)
			}
			control.Heal()
			if row.lost && dev.Device() != "cuda:0" {
				<-count.recovered
			}
			same(t, row.kind+", healed", cpu, dev, smallPage(1), &opt)
		}
		if count.of(row.reason) == 0 {
			t.Errorf("%s: no fallback for %s: %v", row.kind, row.reason, count.reasons)
		}
		if (count.lost.Load() > 0) != row.lost {
			t.Errorf("%s: lost %d times", row.kind, count.lost.Load())
		}
		dev.Close()
	}
}

// A device that is lost with pages of many callers in flight loses none of them, and stays out of use until it answers again.
func TestALostDeviceLosesNoPage(t *testing.T) {
	path, control := faulty(t)
	cpu := onCPU(t)
	var count counter
	dev, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20, Observer: count.observer()}.Hurry())
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	opt := compress.Semantic()
	opt.Ratio = 0.6
	pages := make([]*compress.Input, 4)
	want := make([]compress.Result, len(pages))
	for i := range pages {
		pages[i] = withQueries(smallPage(uint64(i)), 1, 2)
		if err := cpu.Compress(context.Background(), pages[i], &opt, &want[i]); err != nil {
			t.Fatal(err)
		}
	}
	control.Fault("dead", 0, 0)
	control.Fault("lost", 400, 0)
	var callers sync.WaitGroup
	for g := range 8 {
		callers.Go(func() {
			var res compress.Result
			var full, got compress.Attention
			for i := range 12 {
				k := (g + i) % len(pages)
				if _, err := dev.Measure(context.Background(), pages[k], pages[k], &opt, &res, &full, &got); err != nil {
					t.Error(err)
					return
				}
				compare(t, fmt.Sprintf("caller %d page %d", g, k), pages[k], &res, &want[k])
			}
		})
	}
	callers.Wait()
	if count.lost.Load() != 1 || count.of("lost") == 0 || dev.Device() == "cuda:0" {
		t.Errorf("lost %d times, %v, now on %s", count.lost.Load(), count.reasons, dev.Device())
	}
	control.Heal()
	<-count.recovered
	same(t, "recovered", cpu, dev, pages[0], &opt)
	if dev.Device() != "cuda:0" {
		t.Errorf("recovered, but on %s", dev.Device())
	}
}

// Threads of kernels, streams and callers in random order: the cores stay what they are.
func TestAnyOrderGivesTheSameCores(t *testing.T) {
	path, control := faulty(t)
	cpu := onCPU(t)
	dev, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 128 << 20, Observer: noCPU(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	all := methods()
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 64}
	pages := []*compress.Input{random(1, shape{1, 2, 200, 64, compress.F16, rope}), withQueries(random(2, shape{2, 1, 150, 64, compress.BF16, rope}), 2, 3)}
	seeds := 6
	if raced || testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		control.Seed(uint64(seed)*77 + 1)
		var callers sync.WaitGroup
		for name, opt := range all {
			callers.Go(func() {
				opt.Ratio = 0.4
				for i, in := range pages {
					same(t, fmt.Sprintf("seed %d, %s, page %d", seed, name, i), cpu, dev, in, &opt)
				}
			})
		}
		callers.Wait()
	}
}

// A caller that gives up gets its error at once, and its page's memory comes back.
func TestACallerMayGiveUp(t *testing.T) {
	path, _ := faulty(t)
	cpu := onCPU(t)
	dev, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20, Observer: noCPU(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	opt := compress.Semantic()
	opt.Ratio = 0.6
	for range 40 {
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		var res compress.Result
		if err := dev.Compress(ctx, smallPage(1), &opt, &res); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	same(t, "afterwards", cpu, dev, smallPage(2), &opt)
}

// Ten thousand batches leave no goroutine, no thread's context and no memory behind.
func TestBatchesLeaveNothingBehind(t *testing.T) {
	path, control := faulty(t)
	cpu := onCPU(t)
	n := 10_000
	if testing.Short() || raced {
		n = 500
	}
	contexts := control.Stat(fake.Contexts)
	var batches atomic.Int64
	observer := noCPU(t)
	observer.Batch = func(gpu.Batch) { batches.Add(1) }
	dev, err := gpu.Open(cpu, gpu.Options{Library: path, Memory: 64 << 20, Latency: -1, Observer: observer})
	if err != nil {
		t.Fatal(err)
	}
	opt := compress.Semantic()
	opt.Budget, opt.Exact, opt.Threshold = compress.Fixed, 0, 0.5 // the fewest kernels
	in := random(1, shape{1, 1, 60, 16, compress.F32, compress.Rope{Type: "default", Theta: 10000, Dim: 16}})
	pages := func(n int) {
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				var res compress.Result
				for range n / 4 {
					if err := dev.Compress(context.Background(), in, &opt, &res); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
	}
	pages(4)
	goroutines, device, host := runtime.NumGoroutine(), control.Stat(fake.DeviceBytes), control.Stat(fake.HostBytes)
	events, streams := control.Stat(fake.Events), control.Stat(fake.Streams)
	before := batches.Load()
	for batches.Load() < before+int64(n) && !t.Failed() {
		pages(200) // several may share a batch
	}
	for _, x := range []struct {
		what      string
		got, want int
	}{
		{"goroutines", runtime.NumGoroutine(), goroutines}, {"device bytes", control.Stat(fake.DeviceBytes), device},
		{"pinned bytes", control.Stat(fake.HostBytes), host}, {"events", control.Stat(fake.Events), events}, {"streams", control.Stat(fake.Streams), streams},
	} {
		if x.got > x.want {
			t.Errorf("%s after %d batches: %d, before %d", x.what, n, x.got, x.want)
		}
	}
	dev.Close()
	for _, s := range []fake.Stat{fake.DeviceBytes, fake.HostBytes, fake.Streams, fake.Events, fake.Modules} {
		if got := control.Stat(s); got != 0 {
			t.Errorf("statistic %d is %d after Close, want 0", s, got)
		}
	}
	if got := control.Stat(fake.Contexts); got != contexts {
		t.Errorf("%d contexts are retained after Close, want %d", got, contexts)
	}
}
