package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/shm"
)

// gauge reads one value of a sidecar's metrics.
func gauge(t *testing.T, admin, name string) float64 {
	t.Helper()
	resp, err := http.Get(admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + name + `(?:\{.*\})? (\S+)$`).FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("no metric %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// adminURL is in the first log lines of a sidecar.
func (p *process) adminURL(t *testing.T) string {
	t.Helper()
	var url string
	sidecartest.Until(t, "the sidecar tells its admin address", func() bool {
		m := regexp.MustCompile(`"admin":"([^"]+)"`).FindStringSubmatch(p.log.String())
		if m != nil {
			url = m[1]
		}
		return m != nil
	})
	return url
}

// resources are what must not grow: of the process, as the system sees it.
type resources struct {
	goroutines, files, resident float64
}

func (p *process) resources(t *testing.T) (r resources) {
	t.Helper()
	admin := p.adminURL(t)
	r.goroutines = gauge(t, admin, "go_goroutines")
	r.files = gauge(t, admin, "process_open_fds")
	r.resident = gauge(t, admin, "process_resident_memory_bytes")
	return r
}

func (r resources) String() string {
	return fmt.Sprintf("%.0f goroutines, %.0f files, %.0f MiB", r.goroutines, r.files, r.resident/(1<<20))
}

// startWhole runs a sidecar that keeps jobs in a server of its own and takes shared memory.
func startWhole(t *testing.T, more ...string) (p *process, url, socket string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "shm")
	args := []string{"--nats-embedded-listen", "127.0.0.1:0", "--policy-path", writeSmallPolicy(t), "--jobs-enabled", "--jobs-dir", filepath.Join(dir, "jobs"),
		"--store-memory-bytes", "16MiB", "--shared-memory-socket", socket}
	p = startProcess(t, append(args, more...)...)
	p.adminURL(t)
	m := regexp.MustCompile(`"nats":"([^"]+)"`).FindStringSubmatch(p.log.String())
	if m == nil {
		t.Fatalf("the log does not tell the NATS address:\n%s", p.log)
	}
	ready(t, m[1], "acme")
	return p, m[1], socket
}

// Many small pages through every path: nothing grows. SEMPROXY_TEST_SOAK_PAGES, which "make soak" sets to 200000, says how many.
func TestSoakNothingGrows(t *testing.T) {
	n := countFrom(t, "SEMPROXY_TEST_SOAK_PAGES", 3000)
	t.Run("memory", func(t *testing.T) { soak(t, n) })
	t.Run("redis", func(t *testing.T) {
		redistest.Need(t)
		soak(t, n, "--store-redis-addrs", redistest.Start(t).Addr)
	})
}

func soak(t *testing.T, n int, store ...string) {
	p, url, socket := startWhole(t, store...)
	pages := smallPages(t, min(n, 6000))
	patient := client.Options{Tenant: "acme", MaxAttempts: 1000, Backoff: client.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}}
	inline := dial(t, url, patient)
	patient.SharedMemory = shm.Options{Socket: socket, RegionBytes: 16 << 20}
	memory := dial(t, url, patient)
	var serial, shared atomic.Int64
	lap := func(count int) {
		each(count, 4, func(i int) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			// Of each ten, eight over both fast paths in turn and two as jobs.
			which, page := serial.Add(1), i%len(pages)
			var reply *client.Result
			var err error
			switch {
			case which%10 >= 8:
				if _, err = inline.Submit(ctx, fmt.Sprint("soak-", which), pages[page]); err == nil {
					reply, err = inline.Wait(ctx, fmt.Sprint("soak-", which))
				}
			case which%2 == 0:
				reply, err = inline.Compress(ctx, pages[page])
			default:
				if reply, err = memory.Compress(ctx, pages[page]); err == nil && reply.Shared {
					shared.Add(1)
				}
			}
			if err == nil && len(reply.Body) > 0 {
				_, err = digest(reply.Body, page)
			}
			// A job of a page whose object has been evicted since: the store is small on purpose.
			var ce *client.Error
			if err != nil && (!errors.As(err, &ce) || ce.Code != "not_found") {
				t.Errorf("page %d: %v", which, err)
			}
		})
	}
	lap(n / 4) // what is made once is there: pools, streams, caches
	before := p.resources(t)
	lap(n - n/4)
	after := p.resources(t)
	t.Logf("%d pages, %d through shared memory; after a quarter: %v; after all: %v", n, shared.Load(), before, after)
	if after.goroutines > before.goroutines+20 || after.files > before.files+20 {
		t.Errorf("grew from %v to %v", before, after)
	}
	if after.resident > before.resident*1.5+32<<20 {
		t.Errorf("memory grew from %v to %v", before, after)
	}
	if shared.Load() == 0 {
		t.Error("no page went through shared memory")
	}
}

// startNarrow starts a sidecar with little room, which keeps to a memory limit, on a NATS server of its own process: what waits in that
// is not the sidecar's.
func startNarrow(t *testing.T, limit string) (p *process, url string) {
	t.Helper()
	t.Setenv("GOMEMLIMIT", limit)
	port := freePort(t)
	url = fmt.Sprintf("nats://127.0.0.1:%d", port)
	conf := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf("listen: 127.0.0.1:%d\nmax_pending: 268435456\nwrite_deadline: \"10s\"\n", port) // as nats-config writes
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startNATSProcess(t, strings.TrimPrefix(url, "nats://"), "-c", conf)
	p = startProcess(t, "--nats-url", url, "--policy-path", writeSmallPolicy(t), "--store-memory-bytes", "4MiB", "--limits-queue", "32",
		"--limits-in-flight-bytes", "16MiB", "--compress-max-page-bytes", "8MiB", "--limits-workers", "1", "--compress-workers", "1")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sidecar's log:\n%s", p.log)
		}
	})
	ready(t, url, "acme")
	return p, url
}

// flood is pages that are sent once, whatever becomes of them.
type flood struct {
	conns                         []*client.Client
	next                          func() []byte
	sent, answered, busy, pending atomic.Int64

	mu    sync.Mutex
	again [][]byte // told by NATS, not by the sidecar, to try again: past its own bounds it cuts a connection
}

// send starts page i on its way.
func (f *flood) send(t *testing.T, i int) {
	f.sent.Add(1)
	f.pending.Add(1)
	go func() {
		defer f.pending.Add(-1)
		blob := f.next()
		_, err := f.conns[i%len(f.conns)].Compress(context.Background(), blob)
		var ce *client.Error
		switch {
		case err == nil:
			f.answered.Add(1)
		case errors.As(err, &ce) && (ce.Code == "busy" || strings.HasPrefix(ce.Code, "limit.")):
			f.busy.Add(1)
		case errors.As(err, &ce) && ce.Retryable:
			f.mu.Lock()
			f.again = append(f.again, blob)
			f.mu.Unlock()
		default:
			t.Errorf("neither answered nor retryable: %v", err)
		}
	}()
}

// run sends so many pages a second for a while, waits for what became of them, and returns the most memory that p had meanwhile.
func (f *flood) run(t *testing.T, p *process, rate int, long time.Duration) (most float64) {
	t.Helper()
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i, began := 0, time.Now(); time.Since(began) < long; i++ {
		<-tick.C
		f.send(t, i)
		if i%rate == 0 {
			most = max(most, p.resources(t).resident)
		}
	}
	for f.pending.Load() > 0 {
		time.Sleep(5 * time.Millisecond)
	}
	return most
}

// sustained sends pages one after the other for a while: how many there were, and what one took.
func sustained(t *testing.T, c *client.Client, next func() []byte, long time.Duration) (pages int, median time.Duration) {
	t.Helper()
	var times []time.Duration
	for began := time.Now(); time.Since(began) < long || len(times) < 5; {
		r, err := c.Compress(context.Background(), next())
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, r.Duration)
	}
	return len(times), medianOf(times)
}

// Ten times the rate that the sidecar can sustain: every page is answered or told to come again, memory stays within its bound, and
// latency is back to normal soon after. SEMPROXY_TEST_OVERLOAD, which "make soak" sets to a minute, says how long.
func TestOverloadIsAnsweredAndPasses(t *testing.T) {
	long := 3 * time.Second
	if text := os.Getenv("SEMPROXY_TEST_OVERLOAD"); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	// What may live at once: 16 MiB in flight, 64 MiB that the client library has not handed over, what the process needs
	// idle. The collector keeps to it (docs/reference/configuration.md says to set this); what is resident is more, and bounded too.
	const bound = 160 << 20
	p, url := startNarrow(t, "160MiB")
	// Made before, so that sending costs little; more than the store holds, so that it answers none.
	pages, turn := make([][]byte, 128), atomic.Int64{}
	for i := range pages {
		pages[i] = unlike(oneLayer(t))
	}
	f := &flood{next: func() []byte { return pages[int(turn.Add(1))%len(pages)] }}
	once := client.Options{Tenant: "acme", MaxAttempts: 1, Timeout: 20 * time.Second}
	for range 4 {
		f.conns = append(f.conns, dial(t, url, once))
	}
	c := dial(t, url, once)
	n, normal := sustained(t, c, f.next, time.Second)
	rate := 10 * n // a second
	before := p.resources(t)
	most := f.run(t, p, rate, long)
	_, later := sustained(t, c, f.next, 2*time.Second)
	patient := dial(t, url, client.Options{Tenant: "acme", MaxAttempts: 1000})
	for _, blob := range f.again {
		if _, err := patient.Compress(context.Background(), blob); err != nil {
			t.Errorf("a page that was to be sent again: %v", err)
		}
	}
	t.Logf("%d pages in %v at %d a second: %d answered, %d busy, %d cut off by NATS and answered when sent again; resident %v before, %.0f MiB at most; a page takes %v before, %v after",
		f.sent.Load(), long, rate, f.answered.Load(), f.busy.Load(), len(f.again), before, most/(1<<20), normal, later)
	if f.busy.Load() == 0 || f.answered.Load() == 0 {
		t.Error("the load was no overload, or nothing was answered")
	}
	if limit := float64(3 * bound); most > limit {
		t.Errorf("resident memory: got %.0f MiB, want at most %.0f MiB", most/(1<<20), limit/(1<<20))
	}
	if later > 5*normal+50*time.Millisecond {
		t.Errorf("a page takes %v after the overload, %v before", later, normal)
	}
}
