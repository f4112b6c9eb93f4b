package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/client"
)

// operation is one thing that a client did, and what it got. The history of a run is all of them, judged as a whole.
type operation struct {
	tenant string // that asked
	owner  string // whose page or object it is
	kind   string // compress, job, get, or last: the read after everything has healed
	page   int
	object string
	sum    [32]byte // of the cores that came
	code   string   // of an error; empty: acknowledged
}

type history struct {
	mu  sync.Mutex
	all []operation
}

func (h *history) add(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, o)
}

// judge says what of the promises was broken: an answer that is wrong, another tenant's object, an acknowledged object that
// cannot be read back, an operation that was never answered, an acknowledged object under two contents.
func (h *history) judge(want [][32]byte) (faults []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	say := func(format string, a ...any) { faults = append(faults, fmt.Sprintf(format, a...)) }
	acknowledged, read := map[string]int{}, map[string]bool{}
	for i, o := range h.all {
		where := fmt.Sprintf("operation %d, %s of page %d for %s: ", i, o.kind, o.page, o.tenant)
		switch {
		case o.code == "" && o.tenant != o.owner:
			say("%sgot an object of %s", where, o.owner)
			continue
		case o.code == "" && o.sum != want[o.page]:
			say("%swrong cores", where)
		case o.code != "" && o.tenant == o.owner && (o.kind == "compress" || o.kind == "job"):
			say("%snever answered: %s", where, o.code)
		}
		if o.code != "" || o.object == "" {
			continue
		}
		switch o.kind {
		case "compress", "job":
			key := o.tenant + " " + o.object
			if before, there := acknowledged[key]; there && before != o.page {
				say("%sobject %.8s was acknowledged for page %d", where, o.object, before)
			}
			acknowledged[key] = o.page
		case "last":
			read[o.tenant+" "+o.object] = true
		}
	}
	for key, page := range acknowledged {
		if !read[key] {
			say("page %d was acknowledged as %.24s and cannot be read back", page, key)
		}
	}
	return faults
}

// A checker that finds nothing is worth nothing: each kind of fault, planted, is found.
func TestTheHistoryCheckerFindsWhatIsPlanted(t *testing.T) {
	want := [][32]byte{{1}, {2}}
	sound := []operation{
		{tenant: "acme", owner: "acme", kind: "compress", page: 0, object: "a", sum: want[0]},
		{tenant: "acme", owner: "acme", kind: "job", page: 1, object: "b", sum: want[1]},
		{tenant: "globex", owner: "acme", kind: "get", page: 0, object: "a", code: "not_found"},
		{tenant: "acme", owner: "acme", kind: "get", page: 0, object: "a", sum: want[0]},
		{tenant: "acme", owner: "acme", kind: "last", page: 0, object: "a", sum: want[0]},
		{tenant: "acme", owner: "acme", kind: "last", page: 1, object: "b", sum: want[1]},
	}
	if got := (&history{all: sound}).judge(want); len(got) != 0 {
		t.Errorf("a sound history: got %v", got)
	}
	for name, plant := range map[string]func(h *history){
		"lost":                func(h *history) { h.all = h.all[:5] },
		"wrong":               func(h *history) { h.all[3].sum = [32]byte{9} },
		"another page's":      func(h *history) { h.all[0].sum = want[1] },
		"another tenant's":    func(h *history) { h.all[2].code, h.all[2].sum = "", want[0] },
		"never answered":      func(h *history) { h.all[1].code = "deadline" },
		"one name, two pages": func(h *history) { h.all[1].object, h.all[5].object = "a", "a" },
		"wrong at the end":    func(h *history) { h.all[5].sum = want[0] },
	} {
		h := &history{all: append([]operation{}, sound...)}
		if plant(h); len(h.judge(want)) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}

// faultyPlane is two sidecars, NATS with JetStream that syncs what it acknowledges, Redis that does, and a network between them.
type faultyPlane struct {
	t        *testing.T
	nats     *natsProcess
	net      *wire
	redis    *redistest.Server
	args     []string
	mu       sync.Mutex // guards sidecars
	sidecars [2]*process
	count    map[string]int
}

func newFaultyPlane(t *testing.T) *faultyPlane {
	t.Helper()
	redistest.Need(t)
	dir := t.TempDir()
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: %q\nmax_payload: 8MB\njetstream { store_dir: %q, sync_interval: always }\n", address, filepath.Join(dir, "js"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &faultyPlane{t: t, nats: startNATSProcess(t, address, "-c", conf), count: map[string]int{}}
	p.net = newWire(t, address)
	p.redis = redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	p.args = []string{"--nats-url", p.net.url(), "--policy-path", writeSmallPolicy(t), "--store-redis-addrs", p.redis.Addr, "--store-redis-timeout", "500ms",
		"--jobs-enabled", "--jobs-ack-wait", "2s"}
	for i := range p.sidecars {
		p.sidecars[i] = startProcess(t, p.args...)
	}
	ready(t, p.net.url(), "acme")
	return p
}

// disturb does one of the faults.
func (p *faultyPlane) disturb(dice *rand.Rand) {
	i := dice.IntN(2)
	switch kind := dice.IntN(6); kind {
	case 0, 1:
		p.count["kills of a sidecar"]++
		p.mu.Lock()
		_ = p.sidecars[i].cmd.Process.Kill()
		_ = p.sidecars[i].cmd.Wait()
		p.sidecars[i] = startProcess(p.t, p.args...)
		p.mu.Unlock()
	case 2:
		p.count["sidecars that stood still"]++
		process := p.sidecars[i].cmd.Process
		_ = process.Signal(syscall.SIGSTOP)
		time.Sleep(time.Duration(200+dice.IntN(600)) * time.Millisecond)
		_ = process.Signal(syscall.SIGCONT)
	case 3:
		p.count["kills of NATS"]++
		p.nats.kill()
		if err := p.nats.start(); err != nil {
			p.t.Error(err)
		}
	case 4:
		p.count["kills of Redis"]++
		p.redis.Kill()
		time.Sleep(time.Duration(dice.IntN(500)) * time.Millisecond)
		p.redis.Restart(p.t)
	default:
		p.count["cuts of the network"]++
		p.net.stop(time.Duration(100+dice.IntN(300))*time.Millisecond, dice.IntN(2) == 0)
	}
}

// Many clients of two tenants, and faults of every kind: the history of all operations is sound.
// SEMPROXY_TEST_HISTORY_FAULTS says how many faults (10), SEMPROXY_TEST_SEED which.
func TestHistoryUnderFaults(t *testing.T) {
	faults := countFrom(t, "SEMPROXY_TEST_HISTORY_FAULTS", 10)
	seed := countFrom(t, "SEMPROXY_TEST_SEED", 1)
	const distinct = 64
	pages := smallPages(t, distinct)
	want := cleanRun(t, pages)
	p := newFaultyPlane(t)
	var h history
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var group sync.WaitGroup
	var operations atomic.Int64
	tenants := []string{"acme", "globex"}
	patience := client.Options{Timeout: 3 * time.Second, MaxAttempts: 10_000, Backoff: client.Backoff{First: 5 * time.Millisecond, Max: 100 * time.Millisecond}}
	for worker := range 8 {
		opt, dice := patience, rand.New(rand.NewPCG(uint64(seed), uint64(worker)))
		opt.Tenant = tenants[worker%2]
		c := dial(t, p.net.url(), opt)
		group.Go(func() {
			for ctx.Err() == nil {
				operations.Add(1)
				h.add(act(context.WithoutCancel(ctx), c, opt.Tenant, tenants[(worker+1)%2], &h, dice, pages))
			}
		})
	}
	dice := rand.New(rand.NewPCG(uint64(seed), 99))
	for range faults {
		time.Sleep(time.Duration(100+dice.IntN(900)) * time.Millisecond)
		p.disturb(dice)
	}
	cancel()
	group.Wait()
	for _, tenant := range tenants {
		opt := patience
		opt.Tenant = tenant
		readBack(t, dial(t, p.net.url(), opt), tenant, &h)
	}
	if found := h.judge(want); len(found) > 0 {
		t.Errorf("%d faults, the first: %v", len(found), found[:min(len(found), 5)])
	}
	t.Logf("%d operations of 8 clients of 2 tenants, %d faults %v: 0 lost, 0 wrong, 0 of another tenant's", operations.Load(), faults, p.count)
}

// act does one operation at random.
func act(ctx context.Context, c *client.Client, tenant, other string, h *history, dice *rand.Rand, pages [][]byte) operation {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	o := operation{tenant: tenant, owner: tenant, page: dice.IntN(len(pages))}
	var reply *client.Result
	var err error
	switch n := dice.IntN(10); {
	case n < 5:
		o.kind = "compress"
		reply, err = c.Compress(ctx, pages[o.page])
	case n < 7:
		o.kind = "job"
		var job *client.Submitted
		if job, err = c.Submit(ctx, fmt.Sprintf("h-%d-%d", o.page, dice.Uint64()), pages[o.page]); err == nil {
			reply, err = c.Wait(ctx, job.ID)
		}
	default:
		o.kind = "get"
		if n == 9 {
			o.owner = other
		}
		known, ok := h.some(o.owner, dice)
		if !ok {
			o.code = "nothing yet"
			return o
		}
		o.page, o.object = known.page, known.object
		reply, err = c.Get(ctx, o.object)
	}
	o.take(reply, err)
	return o
}

// take notes what came.
func (o *operation) take(reply *client.Result, err error) {
	var e *client.Error
	switch {
	case errors.As(err, &e):
		o.code = e.Code
		return
	case err != nil:
		o.code = err.Error()
		return
	}
	if object := reply.Header.Get(sidecar.HeaderObject); object != "" {
		o.object = object
	}
	if len(reply.Body) == 0 {
		o.code = "no body"
		return
	}
	if o.sum, err = digest(reply.Body, o.page); err != nil {
		o.code = err.Error()
	}
}

// some is an acknowledged object of a tenant.
func (h *history) some(tenant string, dice *rand.Rand) (operation, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range 50 {
		if len(h.all) == 0 {
			break
		}
		if o := h.all[dice.IntN(len(h.all))]; o.tenant == tenant && o.owner == tenant && o.code == "" && o.object != "" {
			return o, true
		}
	}
	return operation{}, false
}

// readBack reads every object that was acknowledged.
func readBack(t *testing.T, c *client.Client, tenant string, h *history) {
	t.Helper()
	h.mu.Lock()
	objects := map[string]int{}
	for _, o := range h.all {
		if o.tenant == tenant && o.code == "" && o.object != "" {
			objects[o.object] = o.page
		}
	}
	h.mu.Unlock()
	for object, page := range objects {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		reply, err := c.Get(ctx, object)
		cancel()
		o := operation{tenant: tenant, owner: tenant, kind: "last", page: page, object: object}
		o.take(reply, err)
		h.add(o)
	}
}
