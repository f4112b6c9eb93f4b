package transport

import (
	"container/list"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// admission decides which messages wait for a worker, and in which order. All its state is bounded: maxQueue requests
// wait, maxBytes of bodies wait or are worked on, maxTenants tenants are remembered. It knows nothing of NATS and reads
// no clock. Safe for concurrent use.
type admission struct {
	maxQueue, maxTenants, workers int
	maxBytes                      int64

	mu      sync.Mutex
	work    sync.Cond // a request waits, or closed was set
	tenants map[string]*tenantState
	idle    list.List // *tenantState without anything in flight, most recently used first
	turns   list.List // *tenantState with waiting requests; the front is served next
	queued  int
	running int
	bytes   int64
	service time.Duration // moving average of the time that a worker spends on a request
	closed  bool
	quiet   chan struct{} // closed once nothing waits or runs; made by whenQuiet
}

// tenantState is what is remembered of one tenant. It is guarded by admission.mu.
type tenantState struct {
	name     string
	limiter  *rate.Limiter
	queue    []*request // oldest first
	queuedB  int64      // bytes of queue
	inFlight int        // waiting and running requests
	bytes    int64      // bytes of them
	turn     *list.Element
	rest     *list.Element
}

// refusal says why a message was not admitted. after is 0 for a final error.
type refusal struct {
	err   *Error
	after time.Duration
}

func newAdmission(maxQueue int, maxBytes int64, maxTenants, workers int) *admission {
	a := &admission{
		maxQueue: maxQueue, maxBytes: maxBytes, maxTenants: maxTenants, workers: workers,
		tenants: make(map[string]*tenantState),
	}
	a.work.L = &a.mu
	return a
}

// admit queues r, or says why not. displaced are requests of heavier tenants that lost their place to r; the caller
// answers them as busy. now is the time of arrival.
func (a *admission) admit(r *request, limits Limits, now time.Time) (displaced []*request, no *refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, &refusal{errDraining, a.pause(0)}
	}
	if r.size > a.maxBytes || (limits.InFlightBytes > 0 && r.size > limits.InFlightBytes) {
		return nil, &refusal{err: errPageTooLarge}
	}
	t := a.tenant(r.tenant)
	if t == nil {
		return nil, &refusal{errBusy, a.pause(a.queued)}
	}
	refund, no := t.takeRate(limits.PagesPerSecond, now)
	if no != nil {
		return nil, no
	}
	if limits.InFlightBytes > 0 && t.bytes+r.size > limits.InFlightBytes {
		refund()
		return nil, &refusal{errBytes, a.pause(len(t.queue))}
	}
	displaced, ok := a.makeRoom(t, r.size)
	if !ok {
		refund()
		return nil, &refusal{errBusy, a.pause(a.queued)}
	}
	a.push(t, r)
	a.work.Signal()
	return displaced, nil
}

// takeRate takes one message from the tenant's rate, or says how long to wait for it. refund gives it back.
func (t *tenantState) takeRate(perSecond float64, now time.Time) (refund func(), no *refusal) {
	if perSecond <= 0 {
		t.limiter = nil
		return func() {}, nil
	}
	burst := int(math.Ceil(min(perSecond, math.MaxInt32)))
	switch {
	case t.limiter == nil:
		t.limiter = rate.NewLimiter(rate.Limit(perSecond), burst)
	case t.limiter.Limit() != rate.Limit(perSecond):
		t.limiter.SetLimitAt(now, rate.Limit(perSecond))
		t.limiter.SetBurstAt(now, burst)
	}
	taken := t.limiter.ReserveN(now, 1)
	if wait := taken.DelayFrom(now); wait > 0 {
		taken.CancelAt(now)
		return nil, &refusal{errRate, max(wait, time.Millisecond)}
	}
	return func() { taken.CancelAt(now) }, nil
}

// next waits for a request and takes it: one from each tenant in turn. It returns nil once the admission is closed.
func (a *admission) next() *request {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.queued == 0 && !a.closed {
		a.work.Wait()
	}
	if a.queued == 0 {
		return nil
	}
	t := a.turns.Front().Value.(*tenantState)
	r := t.queue[0]
	t.queue[0] = nil
	t.queue = t.queue[1:]
	a.leaveQueue(t, r)
	if t.turn != nil {
		a.turns.MoveToBack(t.turn)
	}
	a.running++
	return r
}

// done ends a request that next returned; took is the time that the worker spent on it.
func (a *admission) done(r *request, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running--
	a.service += (took - a.service) / 8
	a.release(a.tenants[r.tenant], r)
	a.checkQuiet()
}

// takeAll empties the queue and refuses from now on; the caller answers what it returns.
func (a *admission) takeAll() []*request {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.work.Broadcast()
	var all []*request
	for a.turns.Len() > 0 {
		t := a.turns.Front().Value.(*tenantState)
		all = append(all, a.popNewest(t))
	}
	a.checkQuiet()
	return all
}

// whenQuiet returns a channel that is closed once nothing waits and nothing runs.
func (a *admission) whenQuiet() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.quiet == nil {
		a.quiet = make(chan struct{})
		a.checkQuiet()
	}
	return a.quiet
}

func (a *admission) checkQuiet() {
	if a.quiet == nil || a.queued+a.running > 0 {
		return
	}
	select {
	case <-a.quiet:
	default:
		close(a.quiet)
	}
}

// load is a snapshot for the gauges.
type load struct {
	queued, running, tenants int
	bytes                    int64
}

func (a *admission) load() load {
	a.mu.Lock()
	defer a.mu.Unlock()
	return load{queued: a.queued, running: a.running, tenants: len(a.tenants), bytes: a.bytes}
}

// retryAfter is the pause that the sender of a displaced request is asked for.
func (a *admission) retryAfter() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pause(a.queued)
}

// Bounds of the pause that a refused sender is asked for.
const (
	minPause = 20 * time.Millisecond
	maxPause = 5 * time.Second
)

// pause estimates when ahead waiting requests will have been served.
func (a *admission) pause(ahead int) time.Duration {
	wait := a.service * time.Duration(ahead+1) / time.Duration(a.workers)
	return min(max(wait, minPause), maxPause)
}
