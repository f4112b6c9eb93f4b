package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/shm"
)

// killPages is how many pages each mode sends: SEMPROXY_TEST_KILL_PAGES, which "make kill" sets to 2000.
func killPages(t *testing.T) int { return countFrom(t, "SEMPROXY_TEST_KILL_PAGES", 300) }

// rig is a NATS server and a sidecar, each a process that may die at any moment, and a network that may stand still.
type rig struct {
	t      *testing.T
	nats   *natsProcess
	net    *wire
	args   []string
	mu     sync.Mutex // guards serve
	serve  *process
	kills  [3]atomic.Int64 // sidecar, NATS server, network
	socket string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	r := &rig{t: t, socket: filepath.Join(dir, "shm")}
	r.nats = startNATSProcess(t, address, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", filepath.Join(dir, "js"))
	r.net = newWire(t, address)
	r.args = []string{"--nats-url", r.net.url(), "--policy-path", writeSmallPolicy(t), "--store-dir", filepath.Join(dir, "store"),
		"--jobs-enabled", "--jobs-ack-wait", "2s"}
	if runtime.GOOS == "linux" {
		r.args = append(r.args, "--shared-memory-socket", r.socket)
	}
	r.serve = startProcess(t, r.args...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last sidecar's log:\n%s", r.serve.log)
		}
	})
	ready(t, r.net.url(), "acme")
	return r
}

// disturb kills one part, chosen in turn, and starts it again.
func (r *rig) disturb(turn int) {
	time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond) // a random moment
	r.kills[turn%3].Add(1)
	switch turn % 3 {
	case 0:
		r.mu.Lock()
		defer r.mu.Unlock()
		_ = r.serve.cmd.Process.Kill()
		_ = r.serve.cmd.Wait()
		r.serve = startProcess(r.t, r.args...)
	case 1:
		r.nats.kill()
		if err := r.nats.start(); err != nil {
			r.t.Error(err)
		}
	default:
		r.net.stop(300*time.Millisecond, turn%2 == 0)
	}
}

// Whatever is killed at whatever moment: no page is lost, none is wrong, and retries are counted.
func TestNothingIsLostWhateverIsKilled(t *testing.T) {
	n := killPages(t)
	pages := smallPages(t, n)
	want := cleanRun(t, pages)
	patient := client.Options{Tenant: "acme", Timeout: 3 * time.Second, MaxAttempts: 10_000, Backoff: client.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}}
	modes := []struct {
		name string
		opt  client.Options
		send func(context.Context, *client.Client, []byte) (*client.Result, int, error)
	}{
		{"inline", patient, compressOne},
		{"shared memory", patient, compressOne},
		{"jobs", patient, submitAndWait},
	}
	for _, mode := range modes {
		if mode.name == "shared memory" && !shm.Supported {
			continue
		}
		t.Run(mode.name, func(t *testing.T) {
			r := newRig(t)
			if mode.name == "shared memory" {
				mode.opt.SharedMemory = shm.Options{Socket: r.socket, RegionBytes: 16 << 20}
			}
			c := dial(t, r.net.url(), mode.opt)
			var answered, retries, byMemory atomic.Int64
			disturbed := make(chan struct{})
			next := make(chan struct{}, n)
			go func() {
				defer close(disturbed)
				disturbances := min(max(n/50, 6), 40)
				for turn := range disturbances {
					for range max(1, n/(disturbances+1)) {
						if _, ok := <-next; !ok {
							return
						}
					}
					r.disturb(turn)
				}
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			each(n, 8, func(i int) {
				reply, attempts, err := mode.send(ctx, c, pages[i])
				var sum [32]byte
				if err == nil {
					sum, err = digest(reply.Body, i)
				}
				switch {
				case err != nil:
					t.Errorf("page %d is lost: %v", i, err)
				case sum != want[i]:
					t.Errorf("page %d is wrong: its cores are not those of the clean run", i)
				default:
					answered.Add(1)
					if reply.Shared {
						byMemory.Add(1)
					}
				}
				retries.Add(int64(attempts - 1))
				next <- struct{}{}
			})
			close(next)
			<-disturbed
			if answered.Load() != int64(n) {
				t.Errorf("%d of %d pages were answered rightly", answered.Load(), n)
			}
			if retries.Load() == 0 {
				t.Error("no attempt had to be repeated: the kills were not felt")
			}
			if mode.name == "shared memory" && byMemory.Load() < int64(n)/4 {
				t.Errorf("only %d of %d pages went through shared memory", byMemory.Load(), n)
			}
			t.Logf("%d pages, %d kills of the sidecar, %d of NATS, %d cuts of the network: 0 lost, 0 wrong, %d retries, %d by shared memory",
				n, r.kills[0].Load(), r.kills[1].Load(), r.kills[2].Load(), retries.Load(), byMemory.Load())
		})
	}
}

func compressOne(ctx context.Context, c *client.Client, blob []byte) (*client.Result, int, error) {
	reply, err := c.Compress(ctx, blob)
	if err != nil {
		return nil, 1, err
	}
	return reply, reply.Attempts, nil
}

func submitAndWait(ctx context.Context, c *client.Client, blob []byte) (*client.Result, int, error) {
	job, err := c.Submit(ctx, "", blob)
	if err != nil {
		return nil, 1, err
	}
	reply, err := c.Wait(ctx, job.ID)
	return reply, job.Attempts, err
}

// wire is a TCP proxy that can stand still, as a network that is cut does.
type wire struct {
	t        testing.TB
	to       string
	listener net.Listener

	mu    sync.Mutex
	still chan struct{} // closed while bytes flow
	conns map[net.Conn]struct{}
	group sync.WaitGroup
}

func newWire(t testing.TB, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, to: to, listener: l, still: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(w.still)
	w.group.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.drop()
		w.group.Wait()
	})
	return w
}

func (w *wire) url() string { return "nats://" + w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		w.mu.Lock()
		w.conns[near], w.conns[far] = struct{}{}, struct{}{}
		w.mu.Unlock()
		w.group.Go(func() { w.carry(near, far) })
		w.group.Go(func() { w.carry(far, near) })
	}
}

func (w *wire) carry(from, to net.Conn) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
		w.mu.Lock()
		delete(w.conns, from)
		w.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		w.mu.Lock()
		still := w.still
		w.mu.Unlock()
		<-still
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// stop lets nothing through for d, then everything, or drops the connections with what they hold.
func (w *wire) stop(d time.Duration, drop bool) {
	flow := make(chan struct{})
	w.mu.Lock()
	w.still = flow
	w.mu.Unlock()
	time.Sleep(d)
	if drop {
		w.drop()
	}
	close(flow)
}

func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}
