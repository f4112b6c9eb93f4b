package forward

import "sync"

// memory counts the bytes of bodies that are held, of each tenant and of all.
type memory struct {
	mu      sync.Mutex
	left    int64
	share   int64 // of one tenant
	tenants map[string]int64
}

func newMemory(all, share int64) *memory {
	return &memory{left: all, share: share, tenants: map[string]int64{}}
}

// take counts n bytes of a tenant, unless its share or the whole is used up; n may be negative. The name must come from a bounded
// set, such as the entries of the policy.
func (m *memory) take(tenant string, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 && (m.left < n || m.tenants[tenant]+n > m.share) {
		return false
	}
	m.left -= n
	if m.tenants[tenant] += n; m.tenants[tenant] == 0 {
		delete(m.tenants, tenant)
	}
	return true
}
