package store

import (
	"container/heap"
	"container/list"
)

// entry is one committed version of an object. Everything but the list and heap positions is immutable.
type entry struct {
	meta
	seq  uint64 // unique in the store: names the version's file and its place in the memory cache
	blob []byte // the content, in a store without files; nil otherwise

	inAll, inTenant *list.Element
	heapAt          int // place in the expiry heap, -1 when the object never expires
}

// index is the account of what is stored: by key, by tenant, by age and by expiry. Its owner holds a lock.
type index struct {
	objects  map[Key]*entry
	tenants  map[string]*tenantAccount
	byAge    *list.List // of *entry, oldest first
	byExpiry expiryHeap
	bytes    int64
}

type tenantAccount struct {
	byAge *list.List // of *entry, oldest first
	bytes int64
}

func newIndex() *index {
	return &index{objects: map[Key]*entry{}, tenants: map[string]*tenantAccount{}, byAge: list.New()}
}

// insert makes e the current version of its key and returns the version that it replaces, or nil.
func (x *index) insert(e *entry) *entry {
	old := x.objects[e.key]
	if old != nil {
		x.remove(old)
	}
	account := x.tenants[e.key.Tenant]
	if account == nil {
		account = &tenantAccount{byAge: list.New()}
		x.tenants[e.key.Tenant] = account
	}
	x.objects[e.key] = e
	e.inAll, e.inTenant = x.byAge.PushBack(e), account.byAge.PushBack(e)
	x.bytes += e.size
	account.bytes += e.size
	e.heapAt = -1
	if e.expires != 0 {
		heap.Push(&x.byExpiry, e)
	}
	return old
}

// remove takes e out; it reports whether e was still the current version.
func (x *index) remove(e *entry) bool {
	if x.objects[e.key] != e {
		return false
	}
	account := x.tenants[e.key.Tenant]
	delete(x.objects, e.key)
	x.byAge.Remove(e.inAll)
	account.byAge.Remove(e.inTenant)
	x.bytes -= e.size
	account.bytes -= e.size
	if e.heapAt >= 0 {
		heap.Remove(&x.byExpiry, e.heapAt)
	}
	if account.byAge.Len() == 0 {
		delete(x.tenants, e.key.Tenant)
	}
	return true
}

// evict removes the oldest of the tenant over its quota, then the oldest of all over the store's limits, and returns
// them. It never removes keep (nil: anything may go). A limit of 0 is none.
func (x *index) evict(tenant string, keep *entry, quota, maxBytes int64, maxObjects int) []*entry {
	var gone []*entry
	for account := x.tenants[tenant]; quota > 0 && account != nil && account.bytes > quota; {
		victim := oldest(account.byAge, keep)
		if victim == nil {
			break
		}
		x.remove(victim)
		gone = append(gone, victim)
	}
	for (maxBytes > 0 && x.bytes > maxBytes) || (maxObjects > 0 && len(x.objects) > maxObjects) {
		victim := oldest(x.byAge, keep)
		if victim == nil {
			break
		}
		x.remove(victim)
		gone = append(gone, victim)
	}
	return gone
}

func oldest(byAge *list.List, keep *entry) *entry {
	for el := byAge.Front(); el != nil; el = el.Next() {
		if e := el.Value.(*entry); e != keep {
			return e
		}
	}
	return nil
}

// expire removes and returns everything that has expired at now (Unix nanoseconds).
func (x *index) expire(now int64) []*entry {
	var gone []*entry
	for len(x.byExpiry) > 0 && x.byExpiry[0].expired(now) {
		e := x.byExpiry[0]
		x.remove(e)
		gone = append(gone, e)
	}
	return gone
}

// expiryHeap is a container/heap of entries, the next to expire first.
type expiryHeap []*entry

func (h expiryHeap) Len() int           { return len(h) }
func (h expiryHeap) Less(i, j int) bool { return h[i].expires < h[j].expires }

func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapAt, h[j].heapAt = i, j
}

// Push is for container/heap.
func (h *expiryHeap) Push(v any) {
	e := v.(*entry)
	e.heapAt = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *expiryHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.heapAt = -1
	return e
}
