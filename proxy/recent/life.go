package recent

import (
	"time"

	"github.com/semproxy/semproxy/proxy/spans"
)

// A request's pages may come while it runs and for a while afterwards: an adapter that saves at the end, and sends again
// what was not answered. Until then what decides them is kept, however many requests of whomever have come since.
const (
	afterlife = 10 * time.Minute // after the request's end
	maxEnded  = 4096             // requests of one tenant that have ended, at most; the oldest go first
	sweep     = time.Minute
)

// life is what the pages of a request are decided by.
type life struct {
	headers map[string]string
	spans   []spans.Span
	known   bool // the spans are
	ended   time.Time
}

// lives are those of a tenant, by the object's name.
type lives struct {
	of    map[string]*life
	ended []string // in the order in which they ended
}

// drop forgets what ended before a time, and what is too much.
func (l *lives) drop(before time.Time) {
	n := max(0, len(l.ended)-maxEnded)
	for n < len(l.ended) && l.of[l.ended[n]].ended.Before(before) {
		n++
	}
	for _, object := range l.ended[:n] {
		delete(l.of, object)
	}
	l.ended = l.ended[n:]
}

// begin keeps what there is to keep of a request; the caller holds the lock.
func (r *Ring) begin(tenant, object string) *life {
	all := r.lives[tenant]
	if all == nil {
		all = &lives{of: map[string]*life{}}
		r.lives[tenant] = all
	}
	one := all.of[object]
	if one == nil {
		one = &life{}
		all.of[object] = one
	}
	return one
}

// find is what is kept of a tenant's request; nil when there is nothing. The caller holds the lock.
func (r *Ring) find(tenant, object string) *life {
	if all := r.lives[tenant]; all != nil {
		return all.of[object]
	}
	return nil
}

// Protect keeps the tokens of messages that the policy protects in a tenant's request, for its pages.
func (r *Ring) Protect(tenant, object string, found []spans.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.begin(tenant, object)
	one.spans, one.known = found, true
}

// End begins the time after which what decides the pages of a tenant's request is forgotten.
func (r *Ring) End(tenant, object string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if one := r.find(tenant, object); one != nil && one.ended.IsZero() {
		one.ended = now
		all := r.lives[tenant]
		all.ended = append(all.ended, object)
		all.drop(now.Add(-afterlife))
	}
	if now.Sub(r.swept) < sweep {
		return
	}
	r.swept = now
	for name, all := range r.lives {
		if all.drop(now.Add(-afterlife)); len(all.of) == 0 {
			delete(r.lives, name)
		}
	}
}

// Headers are those of the request of an object's name that its tenant's rules look at; nil when it is not the tenant's, or has
// none. The map is read only.
func (r *Ring) Headers(tenant, object string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.find(tenant, object); one != nil {
		return one.headers
	}
	return nil
}

// Protected are the tokens of messages that the policy protects in the request of an object's name; false when it is not the
// tenant's, or they were not found. The slice is read only.
func (r *Ring) Protected(tenant, object string) (_ []spans.Span, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if one := r.find(tenant, object); one != nil {
		return one.spans, one.known
	}
	return nil, false
}
