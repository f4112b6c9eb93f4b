package recent

import (
	"slices"
	"sync"

	"github.com/semproxy/semproxy/proxy/spans"
)

// maxPages bounds the pages kept of one request.
const maxPages = 64

// Ring holds the last requests. It is safe for concurrent use.
type Ring struct {
	mu      sync.Mutex
	slots   []*Request // slots[next-1] is the newest
	next    int
	byID    map[string]*Request
	objects map[string]*Request
	traces  map[string]*Request // the newest request of each trace
}

// New makes a ring of so many requests; at least one.
func New(size int) *Ring {
	return &Ring{
		slots: make([]*Request, max(1, size)),
		byID:  map[string]*Request{}, objects: map[string]*Request{}, traces: map[string]*Request{},
	}
}

// Add remembers a request and forgets the oldest. An id that is there already is that of the newer request from now on.
func (r *Ring) Add(request Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.slots[r.next]; old != nil {
		forget(r.byID, old.ID, old)
		forget(r.objects, old.Object, old)
		forget(r.traces, old.TraceID, old)
	}
	r.slots[r.next] = &request
	r.next = (r.next + 1) % len(r.slots)
	r.byID[request.ID], r.objects[request.Object] = &request, &request
	if request.TraceID != "" {
		r.traces[request.TraceID] = &request
	}
}

// forget removes a key that still leads to the request, and not to a newer one.
func forget(index map[string]*Request, key string, request *Request) {
	if index[key] == request {
		delete(index, key)
	}
}

// Update changes the request of an object's name under the ring's lock; nothing happens when it has been forgotten.
// Pages are the ring's own: change leaves them alone.
func (r *Ring) Update(object string, change func(*Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request := r.objects[object]; request != nil {
		change(request)
	}
}

// Page adds a page to its request: that whose object's name is the page's sequence, else the newest of the trace. The
// tenant must be the request's, so that nobody writes into the records of another. It says whether there was one.
func (r *Ring) Page(tenant, traceID string, p Page) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := r.objects[p.Sequence]
	if request == nil {
		request = r.traces[traceID]
	}
	if request == nil || request.Tenant != tenant {
		return false
	}
	request.add(p.PerLayer)
	p.PerLayer = nil
	if len(request.Pages) >= maxPages {
		request.Omitted++
		return true
	}
	request.Pages = append(request.Pages, p)
	return true
}

// Get is a copy of the newest request of an id.
func (r *Ring) Get(id string) (Request, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := r.byID[id]
	if request == nil {
		return Request{}, false
	}
	return request.copy(), true
}

// Headers are those of the request of an object's name that its tenant's rules look at; nil when it is not the tenant's. The
// map is read only.
func (r *Ring) Headers(tenant, object string) map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request := r.objects[object]; request != nil && request.Tenant == tenant {
		return request.Headers
	}
	return nil
}

// Protected are the tokens of messages that the policy protects in the request of an object's name; false when it is not the
// tenant's, or they were not found. The slice is read only.
func (r *Ring) Protected(tenant, object string) (_ []spans.Span, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request := r.objects[object]; request != nil && request.Tenant == tenant && request.Spans != nil && request.Spans.Why == "" {
		return request.Spans.Spans, true
	}
	return nil, false
}

// Fidelity is that of the request of an object's name.
func (r *Ring) Fidelity(object string) Fidelity {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request := r.objects[object]; request != nil {
		return request.Fidelity()
	}
	return Fidelity{}
}

// List copies the requests, newest first.
func (r *Ring) List() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Request, 0, len(r.slots))
	for i := range r.slots {
		request := r.slots[(r.next-1-i+2*len(r.slots))%len(r.slots)]
		if request == nil {
			break
		}
		out = append(out, request.copy())
	}
	return out
}

func (r *Request) copy() Request {
	out := *r
	out.Layers = slices.Clone(r.Layers)
	out.Pages = append([]Page{}, slices.Clone(r.Pages)...)
	return out
}
