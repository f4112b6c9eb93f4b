package limit

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/semproxy/semproxy/codes"
)

// Limits are those of one tenant. A rate of 0 is no limit; Concurrent and Queue of 0 are the defaults of Options.
type Limits struct {
	RequestsPerSecond float64
	TokensPerMinute   float64
	TokensPerHour     float64
	TokensPerDay      float64
	Shadow            bool // what these rates would refuse is admitted, and named in Ticket.Shadowed
	Concurrent        int  // requests at one time
	Queue             int  // requests that wait
}

// Options hold for all tenants together. The zero value of each field is useful.
type Options struct {
	Concurrent          int              // requests of all tenants at one time; 0: 4096
	ConcurrentPerTenant int              // where a tenant's limits do not say; 0: 256
	QueuePerTenant      int              // where a tenant's limits do not say; 0: 256
	QueueTimeout        time.Duration    // longest wait; 0: 30 s
	Now                 func() time.Time // nil: time.Now
}

// Stable codes of a BusyError.
const (
	CodeRequests   = codes.LimitRequests    // requests per second
	CodeTokens     = codes.LimitTokens      // tokens per minute
	CodeTokensHour = codes.LimitTokensHour  // tokens per hour
	CodeTokensDay  = codes.LimitTokensDay   // tokens per day
	CodeQueueFull  = codes.LimitQueueFull   // the tenant's queue
	CodeQueueWait  = codes.LimitQueueWait   // waited too long
	CodeConcurrent = codes.LimitConcurrency // requests of all tenants
)

// BusyError says that a request is refused now, and when it may be tried again.
type BusyError struct {
	Code       string
	RetryAfter time.Duration
}

// Error is a sentence for the client.
func (e *BusyError) Error() string {
	what := map[string]string{
		CodeRequests: "the tenant's requests per second are used up", CodeTokens: "the tenant's tokens per minute are used up",
		CodeTokensHour: "the tenant's tokens per hour are used up", CodeTokensDay: "the tenant's tokens per day are used up",
		CodeQueueFull: "too many requests of the tenant wait already", CodeQueueWait: "the request waited too long for its turn",
		CodeConcurrent: "the proxy serves as many requests as it can",
	}[e.Code]
	return fmt.Sprintf("%s; try again in %d s", what, e.Seconds())
}

// Seconds is RetryAfter in whole seconds, at least one, as the header of that name has it.
func (e *BusyError) Seconds() int { return max(1, int(math.Ceil(e.RetryAfter.Seconds()))) }

// Admission counts the requests. It is safe for concurrent use.
type Admission struct {
	opt Options

	mu      sync.Mutex
	active  int
	tenants map[string]*tenant
	news    chan struct{} // a budget is used for the first time
}

// tenant is one tenant's state.
type tenant struct {
	active, limit int
	waiting       []chan struct{} // in order of arrival; a turn is given by closing
	requests      bucket
	tokens        [3]bucket // per minute, hour and day
	metered       [3]bool   // limited
}

// windows are the seconds of the budgets of tokens, and spentCodes what refuses when one is used up.
var (
	windows    = [3]float64{60, 3600, 86400}
	spentCodes = [3]string{CodeTokens, CodeTokensHour, CodeTokensDay}
)

// New makes an admission that nobody uses yet.
func New(opt Options) *Admission {
	set := func(n *int, def int) {
		if *n <= 0 {
			*n = def
		}
	}
	set(&opt.Concurrent, 4096)
	set(&opt.ConcurrentPerTenant, 256)
	set(&opt.QueuePerTenant, 256)
	if opt.QueueTimeout <= 0 {
		opt.QueueTimeout = 30 * time.Second
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Admission{opt: opt, tenants: map[string]*tenant{}, news: make(chan struct{}, 1)}
}

// Ticket is an admitted request. It is used by one goroutine.
type Ticket struct {
	a        *Admission
	t        *tenant
	reserved int
	shadow   bool
	Waited   time.Duration // in the queue
	Shadowed []string      // codes of what would have refused the request
}

// Enter admits a request of the tenant by the limits in force, at once or when its turn comes. The name must come from a
// bounded set, such as the entries of the policy. The error is a *BusyError, or ctx's. The caller calls Leave once.
func (a *Admission) Enter(ctx context.Context, name string, l Limits) (*Ticket, error) {
	ticket := &Ticket{a: a, shadow: l.Shadow}
	turn, t, err := a.enter(ticket, name, l)
	if err != nil {
		return nil, err
	}
	ticket.t = t
	if turn == nil {
		return ticket, nil
	}
	start := a.opt.Now()
	timeout := time.NewTimer(a.opt.QueueTimeout)
	defer timeout.Stop()
	select {
	case <-turn:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = &BusyError{CodeQueueWait, time.Second}
	}
	if err != nil {
		a.abandon(t, turn)
		return nil, err
	}
	ticket.Waited = a.opt.Now().Sub(start)
	return ticket, nil
}

// enter returns the channel to wait for; nil when the request is admitted.
func (a *Admission) enter(ticket *Ticket, name string, l Limits) (chan struct{}, *tenant, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.opt.Now()
	t := a.tenants[name]
	if t == nil {
		t = &tenant{}
		a.tenants[name] = t
	}
	if t.limit = l.Concurrent; t.limit <= 0 {
		t.limit = a.opt.ConcurrentPerTenant
	}
	queue := l.Queue
	if queue <= 0 {
		queue = a.opt.QueuePerTenant
	}
	for i, n := range [3]float64{l.TokensPerMinute, l.TokensPerHour, l.TokensPerDay} {
		if t.metered[i] = n > 0; t.metered[i] {
			if i >= firstShared && t.tokens[i].at.IsZero() {
				a.tell()
			}
			t.tokens[i].set(now, n/windows[i], n)
		}
	}
	if t.active >= t.limit && len(t.waiting) >= queue {
		return nil, nil, &BusyError{CodeQueueFull, time.Second}
	}
	if a.active >= a.opt.Concurrent {
		return nil, nil, &BusyError{CodeConcurrent, time.Second}
	}
	if l.RequestsPerSecond > 0 {
		t.requests.set(now, l.RequestsPerSecond, max(1, l.RequestsPerSecond))
		if wait, ok := t.requests.take(now, 1); !ok {
			if !l.Shadow {
				return nil, nil, &BusyError{CodeRequests, wait}
			}
			ticket.Shadowed = append(ticket.Shadowed, CodeRequests)
		}
	}
	a.active++ // who waits counts too: it holds a connection
	if t.active < t.limit && len(t.waiting) == 0 {
		t.active++
		return nil, t, nil
	}
	turn := make(chan struct{})
	t.waiting = append(t.waiting, turn)
	return turn, t, nil
}

// abandon leaves the queue; a turn that was given meanwhile goes to the next.
func (a *Admission) abandon(t *tenant, turn chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active--
	for i, w := range t.waiting {
		if w == turn {
			t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
			return
		}
	}
	t.active--
	t.next()
}

// next gives turns while there is room.
func (t *tenant) next() {
	for len(t.waiting) > 0 && t.active < t.limit {
		close(t.waiting[0])
		t.waiting = t.waiting[1:]
		t.active++
	}
}

// Reserve takes the tokens that the request is expected to use, before it is sent. The error is a *BusyError.
func (k *Ticket) Reserve(tokens int) error {
	k.a.mu.Lock()
	defer k.a.mu.Unlock()
	now := k.a.opt.Now()
	for i := range k.t.tokens {
		if !k.t.metered[i] {
			continue
		}
		wait, ok := k.t.tokens[i].take(now, float64(tokens))
		switch {
		case ok:
			continue
		case k.shadow:
			k.Shadowed = append(k.Shadowed, spentCodes[i])
			k.t.tokens[i].settle(now, -float64(tokens))
			continue
		}
		for j := range i { // what was taken comes back
			if k.t.metered[j] {
				k.t.tokens[j].settle(now, float64(tokens))
			}
		}
		return &BusyError{spentCodes[i], wait}
	}
	k.reserved = tokens
	return nil
}

// Leave ends the request, which used so many tokens; negative: not known, so what was reserved is what counts.
func (k *Ticket) Leave(used int) {
	k.a.mu.Lock()
	defer k.a.mu.Unlock()
	for i := range k.t.tokens {
		if k.t.metered[i] && used >= 0 {
			k.t.tokens[i].settle(k.a.opt.Now(), float64(k.reserved-used))
		}
	}
	k.a.active--
	k.t.active--
	k.t.next()
}

// Load is what one tenant is using.
type Load struct{ Active, Waiting int }

// Loads is the present use by tenant.
func (a *Admission) Loads() map[string]Load {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]Load, len(a.tenants))
	for name, t := range a.tenants {
		out[name] = Load{t.active, len(t.waiting)}
	}
	return out
}
