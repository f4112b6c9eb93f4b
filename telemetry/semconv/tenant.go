package semconv

import (
	"maps"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
)

const (
	// DefaultTenantLabels is how many tenants a TenantLabel tells apart unless told otherwise.
	DefaultTenantLabels = 256
	// OtherTenant is the label of every further tenant. A tenant of that very name shares it.
	OtherTenant = "other"
)

// TenantLabel bounds the tenants that metrics tell apart: the first that it sees keep their names, all others are
// OtherTenant. It is safe for concurrent use; asking for a tenant seen before takes no lock and allocates nothing.
type TenantLabel struct {
	limit int
	mu    sync.Mutex // held to add
	known atomic.Pointer[map[string]attribute.KeyValue]
}

// NewTenantLabel tells limit tenants apart (0 or less: DefaultTenantLabels). Those named here have their place from
// the start, so that strangers cannot take it.
func NewTenantLabel(limit int, reserved ...string) *TenantLabel {
	if limit <= 0 {
		limit = DefaultTenantLabels
	}
	l := &TenantLabel{limit: limit}
	known := map[string]attribute.KeyValue{}
	for _, tenant := range reserved {
		if len(known) == limit {
			break
		}
		known[tenant] = Tenant.String(tenant)
	}
	l.known.Store(&known)
	return l
}

var otherTenant = Tenant.String(OtherTenant)

// Attribute is the label as a metric's attribute.
func (l *TenantLabel) Attribute(tenant string) attribute.KeyValue {
	known := *l.known.Load()
	if label, ok := known[tenant]; ok {
		return label
	}
	if len(known) >= l.limit {
		return otherTenant
	}
	return l.add(tenant)
}

// Value is the label itself: the tenant's name or OtherTenant.
func (l *TenantLabel) Value(tenant string) string { return l.Attribute(tenant).Value.AsString() }

func (l *TenantLabel) add(tenant string) attribute.KeyValue {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := *l.known.Load()
	if label, ok := known[tenant]; ok {
		return label
	}
	if len(known) >= l.limit {
		return otherTenant
	}
	more := maps.Clone(known)
	label := Tenant.String(tenant)
	more[tenant] = label
	l.known.Store(&more)
	return label
}
