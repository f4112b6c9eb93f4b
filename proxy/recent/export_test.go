package recent

import "time"

// SetNow gives the ring another clock.
func (r *Ring) SetNow(now func() time.Time) { r.now = now }

// Lives counts the tenants and the requests whose pages may still come.
func (r *Ring) Lives() (tenants, requests int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, all := range r.lives {
		requests += len(all.of)
	}
	return len(r.lives), requests
}
