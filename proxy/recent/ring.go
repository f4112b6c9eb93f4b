package recent

import (
	"slices"
	"sync"
	"time"
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
	done    func(*Request)      // is told of each request that is done; nil: nobody is

	adapters map[string]bool   // models that an adapter has worked for
	lives    map[string]*lives // of each tenant: what decides the pages of its requests, which need no slot
	swept    time.Time
	now      func() time.Time

	alone    *Ring // pages that belong to no request
	nameless int   // of them, those without a sequence
}

// OnDone has f told of every request when it is done. f must not use the ring, and is set before the ring is used.
func (r *Ring) OnDone(f func(*Request)) { r.done = f }

// New makes a ring of so many requests; at least one.
func New(size int) *Ring {
	r := newRing(size)
	r.alone = newRing(size)
	return r
}

func newRing(size int) *Ring {
	return &Ring{
		slots: make([]*Request, max(1, size)),
		byID:  map[string]*Request{}, objects: map[string]*Request{}, traces: map[string]*Request{},
		lives: map[string]*lives{}, adapters: map[string]bool{}, now: time.Now,
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
	if request.Done && r.done != nil {
		r.done(&request)
	}
	r.slots[r.next] = &request
	r.next = (r.next + 1) % len(r.slots)
	r.byID[request.ID], r.objects[request.Object] = &request, &request
	if request.TraceID != "" {
		r.traces[request.TraceID] = &request
	}
	if request.Headers != nil {
		r.begin(request.Tenant, request.Object).headers = request.Headers
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
		before := request.Done
		change(request)
		if len(request.KV) > 0 {
			r.sawAdapter(request.Model)
		}
		if !before && request.Done && r.done != nil {
			r.done(request)
		}
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
	r.sawAdapter(request.Model)
	request.add(p.PerLayer)
	p.PerLayer = nil
	if len(request.Pages) >= maxPages {
		request.Omitted++
		return true
	}
	request.Pages = append(request.Pages, p)
	return true
}

// Get is a copy of the newest request of an id, else of the pages alone that are named by it.
func (r *Ring) Get(id string) (Request, bool) {
	if request, ok := r.get(id); ok {
		return request, true
	}
	return r.alone.get(id)
}

func (r *Ring) get(id string) (Request, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := r.byID[id]
	if request == nil {
		return Request{}, false
	}
	return request.copy(), true
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

// List copies the requests and the pages alone, newest first.
func (r *Ring) List() []Request {
	requests, alone := r.list(), r.alone.list()
	if len(alone) == 0 {
		return requests
	}
	return newestFirst(requests, alone)
}

func (r *Ring) list() []Request {
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
