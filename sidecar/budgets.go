package sidecar

import (
	"context"

	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/store/redis"
)

// ledger keeps what tenants use in the store that the replicas share.
type ledger struct{ store *redis.Store }

var _ limit.Ledger = ledger{}

// Spend is part of limit.Ledger.
func (l ledger) Spend(ctx context.Context, budgets []limit.Budget) ([]float64, error) {
	out := make([]redis.Budget, len(budgets))
	for i, b := range budgets {
		out[i] = redis.Budget(b)
	}
	return l.store.Spend(ctx, out)
}

// shareBudgets keeps budgets of tokens in step among the replicas, where they share a Redis.
func (s *Sidecar) shareBudgets() {
	if s.redis == nil {
		return
	}
	s.requests.actors = append(s.requests.actors, func(ctx context.Context) error {
		return s.requests.admission.Share(ctx, ledger{s.redis}, s.log)
	})
}
