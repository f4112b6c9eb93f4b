package semconv_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

func TestTheFirstTenantsKeepTheirNames(t *testing.T) {
	label := semconv.NewTenantLabel(3, "reserved")
	for _, step := range []struct{ tenant, want string }{
		{"a", "a"}, {"b", "b"}, {"c", "other"}, {"reserved", "reserved"}, {"a", "a"}, {"c", "other"}, {"other", "other"},
	} {
		if got := label.Value(step.tenant); got != step.want {
			t.Errorf("Value(%q): got %q, want %q", step.tenant, got, step.want)
		}
		if got, want := label.Attribute(step.tenant), semconv.Tenant.String(step.want); got != want {
			t.Errorf("Attribute(%q): got %v, want %v", step.tenant, got, want)
		}
	}
}

func TestTheDefaultBoundHoldsUnderConcurrentUse(t *testing.T) {
	label := semconv.NewTenantLabel(0)
	var mu sync.Mutex
	values := map[string]bool{}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 400 {
				value := label.Value(fmt.Sprintf("tenant-%d", (i*7+w)%400))
				mu.Lock()
				values[value] = true
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if got, want := len(values), semconv.DefaultTenantLabels+1; got != want {
		t.Errorf("label values: got %d, want %d", got, want)
	}
}

func TestAKnownTenantCostsNoAllocation(t *testing.T) {
	label := semconv.NewTenantLabel(1)
	label.Value("acme")
	for _, tenant := range []string{"acme", "stranger"} {
		if got := testing.AllocsPerRun(100, func() { _ = label.Value(tenant); _ = label.Attribute(tenant) }); got != 0 {
			t.Errorf("allocations for %s: got %v, want 0", tenant, got)
		}
	}
}

func BenchmarkTenantLabel(b *testing.B) {
	label := semconv.NewTenantLabel(0, "acme")
	b.ReportAllocs()
	for b.Loop() {
		_ = label.Attribute("acme")
	}
}
