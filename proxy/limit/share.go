package limit

import (
	"context"
	"log/slog"
	"time"
)

// Ledger is where several processes keep what tenants have used together.
type Ledger interface {
	// Spend takes what was used off each budget and returns what is left of each, of all processes together.
	Spend(ctx context.Context, budgets []Budget) (left []float64, err error)
}

// Budget is what a tenant may use in a window, which refills evenly, and what it has used here since this was last said.
type Budget struct {
	Tenant string
	Window time.Duration
	Size   float64
	Used   float64 // negative: given back
}

// firstShared is the first of the windows that are shared: a minute is over before it is worth it.
const firstShared = 1

// How often budgets are shared. What the others use in between is not known here: by so much a budget may be overdrawn, and it is owed then.
const shareEvery = time.Second

// Share keeps the budgets of hours and days in step with a ledger until ctx ends, then says once more what was used, and returns nil. While the
// ledger is away each process counts by itself, and says later what it has used.
func (a *Admission) Share(ctx context.Context, ledger Ledger, log *slog.Logger) error {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	away := false
	for last := false; ; {
		err := a.share(context.WithoutCancel(ctx), ledger)
		if (err != nil) != away {
			if away = err != nil; away {
				log.Warn("budgets_not_shared", "error", err.Error(), "effect", "each replica counts tokens per hour and day by itself until the store is back")
			} else {
				log.Info("budgets_shared")
			}
		}
		if last {
			return nil
		}
		select {
		case <-tick.C:
		case <-a.news:
		case <-ctx.Done():
			last = true
		}
	}
}

// tell lets Share know of a budget at once.
func (a *Admission) tell() {
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// share is one turn.
func (a *Admission) share(ctx context.Context, ledger Ledger) error {
	var budgets []Budget
	var buckets []*bucket
	a.mu.Lock()
	for name, t := range a.tenants {
		for i := firstShared; i < len(windows); i++ {
			if b := &t.tokens[i]; t.metered[i] {
				budgets = append(budgets, Budget{Tenant: name, Window: time.Duration(windows[i] * float64(time.Second)), Size: b.burst, Used: b.share()})
				buckets = append(buckets, b)
			}
		}
	}
	a.mu.Unlock()
	if len(budgets) == 0 {
		return nil
	}
	left, err := ledger.Spend(ctx, budgets)
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.opt.Now()
	for i, b := range buckets {
		if err != nil {
			b.spent += budgets[i].Used // to be said later
			continue
		}
		b.shared(now, left[i])
	}
	return err
}
