package scalebench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
)

// Options say what is measured.
type Options struct {
	Semproxy     string        // semproxy's program
	Self         string        // this program, which is the NATS servers too
	Dir          string        // for files of the run; it must exist
	Namespaces   bool          // every NATS and Redis server in a network namespace of its own; the caller is in one already
	Sidecars     []int         // numbers of sidecars in the queue group
	Clients      int           // pages under way at once
	SidecarCores int           // that a sidecar may use
	Time         time.Duration // of each measurement
}

// Row is one measured size.
type Row struct {
	Work     string  `json:"work"`
	Sidecars int     `json:"sidecars"`
	Clients  int     `json:"clients"`
	Pages    float64 `json:"pages_per_second"`

	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`

	Costs   Costs   `json:"costs_of_a_page"`
	Machine Machine `json:"machine"`
	Retried int     `json:"retried"` // pages that were answered busy at first
}

// The two kinds of work that are measured: what most tenants use, and what costs a sidecar the most.
const (
	Cores = "weighted, 25 %"
	Bits  = "4 bits"
	// Leaves is the first, on two nodes with a NATS server each, which are leaf nodes of the others.
	Leaves = Cores + ", leaf nodes"
)

// works are the kinds, with the names that their tenants begin with.
var works = []struct{ work, tenants string }{{Cores, "cores"}, {Bits, "bits"}}

// tenants is how many of them share the sidecars; each has an account of its own in Redis.
const tenants = 8

// rules is the policy of all tenants. What is stored lives as long as a run needs it.
func rules() string {
	text := `
apiVersion: semproxy.io/v1
profiles:
  cores: { method: weighted, ratio: 0.25, store: { ttl: 10s } }
  bits: { method: none, bits: 4, store: { ttl: 10s } }
tenants:
`
	for _, w := range works {
		for i := range tenants {
			text += fmt.Sprintf("  %s-%d: { rules: [ { profile: %[1]s } ] }\n", w.tenants, i)
		}
	}
	return text
}

// Measure runs real NATS, Redis and sidecars and reports each size. The first row of each kind of work is one page at a time.
func Measure(ctx context.Context, o Options, report func(Row)) error {
	if o.Semproxy == "" || o.Self == "" || o.Clients < 1 || o.SidecarCores < 1 || o.Time <= 0 || len(o.Sidecars) == 0 || slices.Min(o.Sidecars) < 1 {
		return errors.New("the programs are missing, or sidecars, clients, cores and time are not positive")
	}
	places := func(first, n int) []place {
		all := make([]place, n)
		for i := range all {
			all[i] = loopback{}
			if o.Namespaces {
				all[i] = namespace{index: first + i}
			}
		}
		return all
	}
	if o.Namespaces {
		if err := openBridge(); err != nil {
			return err
		}
	}
	policy := filepath.Join(o.Dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(rules()), 0o600); err != nil {
		return err
	}
	m := &measuring{Options: o, policy: policy}
	servers := processes{dir: o.Dir}
	defer servers.stop()
	var err error
	var hub []string
	if m.pages, err = openPages(); err != nil {
		return err
	}
	if m.urls, hub, m.nats, err = servers.startNATS(ctx, o.Self, places(1, 3)); err != nil {
		return err
	}
	if m.addrs, m.redis, err = servers.startRedis(ctx, places(4, 3)); err != nil {
		return err
	}
	for _, w := range works {
		for i, n := range append([]int{1}, o.Sidecars...) {
			clients := o.Clients
			if i == 0 {
				clients = 1
			}
			row, err := m.size(ctx, w.tenants, n, clients)
			if err != nil {
				return fmt.Errorf("%s, %d sidecars, %d pages at once: %w", w.work, n, clients, err)
			}
			row.Work = w.work
			report(row)
		}
	}
	const nodes = 2
	if m.leafURLs, m.leaves, err = servers.startLeaves(ctx, o.Self, places(7, nodes), hub); err != nil {
		return err
	}
	row, err := m.size(ctx, works[0].tenants, nodes, o.Clients)
	if err != nil {
		return fmt.Errorf("leaf nodes: %w", err)
	}
	row.Work = Leaves
	report(row)
	return nil
}

// measuring is a run under way.
type measuring struct {
	Options
	policy      string
	urls, addrs []string
	nats, redis []*process
	pages       *pages

	leafURLs []string // where there are leaf nodes: one a sidecar, and clients
	leaves   []*process
}

// at is where sidecar or client i connects.
func (m *measuring) at(i int) []string {
	if len(m.leafURLs) > 0 {
		return m.leafURLs[i%len(m.leafURLs):][:1]
	}
	return m.urls
}

// startSidecars starts so many sidecars of one queue group, and waits until all of them are ready.
func (m *measuring) startSidecars(ctx context.Context, p *processes, n int) ([]*process, error) {
	admin, err := ports(n)
	if err != nil {
		return nil, err
	}
	var all []*process
	cores := strconv.Itoa(m.SidecarCores)
	for i, port := range admin {
		addr := "127.0.0.1:" + port
		one, err := p.start(ctx, loopback{}, fmt.Sprint("sidecar-", i), addr, []string{"GOMAXPROCS=" + cores}, m.Semproxy, "serve",
			"--nats-url", strings.Join(m.at(i), ","), "--store-redis-addrs", strings.Join(m.addrs, ","), "--store-redis-cluster",
			"--policy-path", m.policy, "--admin-listen", addr, "--limits-workers", cores, "--compress-workers", cores, "--compress-device", "cpu")
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	for i, one := range all {
		err := one.wait(ctx, func() bool {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+admin[i]+"/readyz", http.NoBody)
			if err != nil {
				return false
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return false
			}
			defer func() { _ = resp.Body.Close() }()
			return resp.StatusCode == http.StatusOK
		})
		if err != nil {
			return nil, err
		}
	}
	http.DefaultClient.CloseIdleConnections()
	return all, nil
}

// counters are what has been used so far.
type counters struct {
	at                                   time.Time
	own, sidecars, nats, redis, machine  time.Duration
	natsBytes, redisBytes                int64
	natsBytesKnown, redisKnown, cpuKnown bool
}

func (m *measuring) count(sidecars []*process) counters {
	c := counters{at: time.Now(), own: cpuOf(os.Getpid()), natsBytesKnown: true, redisKnown: true}
	sum := func(of []*process, bytes *int64, known *bool) (cpu time.Duration) {
		for _, p := range of {
			cpu += cpuOf(p.cmd.Process.Pid)
			n, ok := p.place.received(p.cmd.Process.Pid)
			*bytes, *known = *bytes+n, *known && ok
		}
		return cpu
	}
	var none int64
	var no bool
	c.sidecars = sum(sidecars, &none, &no)
	c.nats, c.redis = sum(m.nats, &c.natsBytes, &c.natsBytesKnown), sum(m.redis, &c.redisBytes, &c.redisKnown)
	c.nats += sum(m.leaves, &none, &no) // their bytes stay on their node
	c.machine, c.cpuKnown = machineCPU()
	return c
}

// size measures so many sidecars with so many pages at once.
func (m *measuring) size(ctx context.Context, tenant string, n, clients int) (Row, error) {
	p := processes{dir: m.Dir}
	defer p.stop()
	sidecars, err := m.startSidecars(ctx, &p, n)
	if err != nil {
		return Row{}, err
	}
	load := &load{pages: m.pages}
	defer load.close()
	if len(m.leafURLs) > 0 { // the leaf nodes are joined when a page from outside is answered
		if err := m.outside(ctx, tenant); err != nil {
			return Row{}, err
		}
	}
	for i := range clients {
		at := m.at(i)
		c, err := client.Dial(at[i%len(at)], transport.ConnectOptions{Logger: slog.New(slog.DiscardHandler)},
			client.Options{Tenant: fmt.Sprintf("%s-%d", tenant, i%tenants), TracerProvider: noop.NewTracerProvider()})
		if err != nil {
			return Row{}, err
		}
		load.clients = append(load.clients, c)
	}
	if err := load.run(ctx, max(m.Time/4, 500*time.Millisecond)); err != nil { // warm
		return Row{}, err
	}
	load.times, load.cores, load.retried = nil, 0, 0
	before := m.count(sidecars)
	if err := load.run(ctx, m.Time); err != nil {
		return Row{}, err
	}
	return m.row(n, clients, load, before, m.count(sidecars)), nil
}

// outside sends a page to a server that has no sidecar.
func (m *measuring) outside(ctx context.Context, tenant string) error {
	c, err := client.Dial(m.urls[0], transport.ConnectOptions{Logger: slog.New(slog.DiscardHandler)},
		client.Options{Tenant: tenant + "-0", TracerProvider: noop.NewTracerProvider()})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = (&load{pages: m.pages}).one(ctx, c, nil)
	return err
}

func (m *measuring) row(n, clients int, l *load, a, b counters) Row {
	wall, pages := b.at.Sub(a.at), len(l.times)
	each := func(d time.Duration) time.Duration { return d / time.Duration(pages) }
	cores := runtime.NumCPU()
	r := Row{
		Sidecars: n, Clients: clients, Pages: float64(pages) / wall.Seconds(), Retried: l.retried,
		Costs: Costs{
			PageBytes: int64(m.pages.size), CoreBytes: l.cores / int64(pages),
			Client: each(b.own - a.own), Sidecar: each(b.sidecars - a.sidecars), NATS: each(b.nats - a.nats), Redis: each(b.redis - a.redis),
		},
		Machine: Machine{Cores: cores, Free: float64(cores), SidecarCores: m.SidecarCores},
	}
	if a.natsBytesKnown && b.natsBytesKnown {
		r.Costs.NATSBytes = (b.natsBytes - a.natsBytes) / int64(pages)
	}
	if a.redisKnown && b.redisKnown {
		r.Costs.RedisBytes = (b.redisBytes - a.redisBytes) / int64(pages)
	}
	if a.cpuKnown && b.cpuKnown {
		ours := b.own - a.own + b.sidecars - a.sidecars + b.nats - a.nats + b.redis - a.redis
		others := max(0, (b.machine-a.machine-ours).Seconds()/wall.Seconds())
		r.Machine.Free = max(0.05, float64(cores)-others)
	}
	slices.Sort(l.times)
	r.P50, r.P99 = quantile(l.times, .5), quantile(l.times, .99)
	r.Costs.Latency, r.Costs.Spread = r.P50, spreadOf(l.times)
	return r
}

// spreadOf is the deviation of the logarithm of sorted times, as the middle two thirds of them have it: a few that waited for
// something else do not count.
func spreadOf(sorted []time.Duration) float64 {
	low, high := quantile(sorted, .159), quantile(sorted, .841)
	if low <= 0 {
		return 0
	}
	return math.Log(float64(high)/float64(low)) / 2
}

// load is clients that send.
type load struct {
	pages   *pages
	clients []*client.Client

	mu      sync.Mutex
	times   []time.Duration
	cores   int64 // bytes
	retried int
}

func (l *load) close() {
	for _, c := range l.clients {
		c.Close()
	}
}

// run has every client send one page after another for a while. Any page that is not compressed ends it.
func (l *load) run(ctx context.Context, d time.Duration) error {
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	end := time.Now().Add(d)
	for _, c := range l.clients {
		group.Go(func() {
			var buf []byte
			for failed.Load() == nil && time.Now().Before(end) {
				var err error
				if buf, err = l.one(ctx, c, buf); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (l *load) one(ctx context.Context, c *client.Client, buf []byte) ([]byte, error) {
	blob, err := l.pages.next(buf[:0])
	if err != nil {
		return buf, err
	}
	began := time.Now()
	r, err := c.Compress(ctx, blob)
	if err != nil {
		return blob, err
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times, l.cores = append(l.times, took), l.cores+int64(len(r.Body))
	if r.Attempts > 1 {
		l.retried++
	}
	return blob, nil
}
