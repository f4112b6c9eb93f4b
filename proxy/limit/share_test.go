package limit_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
)

// shared is a real Redis as a ledger, which can be made to fail.
type shared struct {
	*redis.Store
	turns atomic.Int64
	away  atomic.Bool
}

// Spend is part of limit.Ledger.
func (s *shared) Spend(ctx context.Context, budgets []limit.Budget) ([]float64, error) {
	defer s.turns.Add(1)
	if s.away.Load() {
		return nil, errors.New("away")
	}
	out := make([]redis.Budget, len(budgets))
	for i, b := range budgets {
		out[i] = redis.Budget(b)
	}
	return s.Store.Spend(ctx, out)
}

// replica is one process's admission, in step with the others until the test ends.
func replica(t *testing.T, addr string) (*limit.Admission, *shared, func()) {
	t.Helper()
	store, err := redis.Open(redis.Options{Addrs: []string{addr}, Prefix: "p:"})
	if err != nil {
		t.Fatal(err)
	}
	a, ledger := limit.New(limit.Options{}), &shared{Store: store}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Share(ctx, ledger, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Share: got %v, want nil", err)
		}
		_ = store.Close()
	}
	t.Cleanup(stop)
	return a, ledger, stop
}

// again waits until the ledger has been told once more from now on, as a whole.
func (s *shared) again(t *testing.T) {
	t.Helper()
	from := s.turns.Load()
	for deadline := time.Now().Add(30 * time.Second); s.turns.Load() < from+2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the budgets are not shared")
		}
	}
}

func use(t *testing.T, a *limit.Admission, l limit.Limits, tokens int) error {
	t.Helper()
	k := enter(t, a, "acme", l)
	err := k.Reserve(tokens)
	if err == nil {
		k.Leave(tokens)
	} else {
		k.Leave(0)
	}
	return err
}

func TestReplicasShareBudgetsThroughRedis(t *testing.T) {
	redistest.Need(t)
	server := redistest.Start(t)
	first, one, stop := replica(t, server.Addr)
	second, two, _ := replica(t, server.Addr)
	l := limit.Limits{TokensPerHour: 10_000, TokensPerDay: 100_000}
	if err := use(t, first, l, 6000); err != nil {
		t.Fatal(err)
	}
	one.again(t)
	_ = use(t, second, l, 0) // it knows the tenant
	two.again(t)
	var busy *limit.BusyError
	if err := use(t, second, l, 5000); !errors.As(err, &busy) || busy.Code != limit.CodeTokensHour || busy.RetryAfter < 5*time.Minute || busy.RetryAfter > 7*time.Minute {
		t.Errorf("5000 after another replica's 6000 of 10000: got %v, want it refused for six minutes", err)
	}
	if err := use(t, second, l, 3500); err != nil {
		t.Errorf("3500 of what is left: got %v, want nil", err)
	}
	two.again(t)
	one.again(t)
	if err := use(t, first, l, 1000); !errors.As(err, &busy) {
		t.Errorf("1000 of the 500 that are left: got %v, want it refused", err)
	}

	// While the ledger is away each counts by itself, and says later what it has used; so does one that ends.
	one.away.Store(true)
	one.again(t)
	if err := use(t, first, l, 400); err != nil {
		t.Errorf("while it is away: got %v, want what is left to be used", err)
	}
	one.away.Store(false)
	stop()
	two.again(t)
	if err := use(t, second, l, 300); !errors.As(err, &busy) {
		t.Errorf("300 of the 100 that are left: got %v, want it refused", err)
	}

	// A replica that starts anew knows what was used before.
	third, three, _ := replica(t, server.Addr)
	_ = use(t, third, l, 0)
	three.again(t)
	if err := use(t, third, l, 300); !errors.As(err, &busy) {
		t.Errorf("a new replica: got %v, want 300 of 100 refused", err)
	}
	if err := use(t, third, limit.Limits{TokensPerDay: 100_000}, 80_000); err != nil {
		t.Errorf("the day's: got %v, want nil", err)
	}
}
