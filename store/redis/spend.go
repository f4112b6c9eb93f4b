package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Budget is what a tenant may use in a window of time, which refills evenly, and what it has used since this was last said.
type Budget struct {
	Tenant string
	Window time.Duration
	Size   float64
	Used   float64 // negative: given back
}

// Spend takes what was used off each budget, and returns what is left of each in all processes together; below zero: it is owed. All are taken,
// or an error is returned; after one some may have been.
func (s *Store) Spend(ctx context.Context, budgets []Budget) ([]float64, error) {
	if err := s.open("spend"); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	left := make([]float64, len(budgets))
	pipe := s.client.Pipeline()
	answers := make([]*goredis.Cmd, len(budgets))
	for i, b := range budgets { // by the script's text: a pipeline cannot ask again where a server does not know it
		answers[i] = spendScript.Eval(ctx, pipe, []string{s.keys.budget(b.Tenant, b.Window)}, b.Size, b.Window.Milliseconds(), b.Used)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, unavailable(ctx, "spend", err)
	}
	for i, a := range answers {
		text, err := a.Text()
		if err == nil {
			left[i], err = strconv.ParseFloat(text, 64)
		}
		if err != nil {
			return nil, unavailable(ctx, "spend", fmt.Errorf("what is left: %w", err))
		}
	}
	return left, nil
}

// budget is what is left of a tenant's tokens in a window.
func (k keys) budget(tenant string, window time.Duration) string {
	return k.prefix + "{" + tenantName(tenant) + "}:budget:" + strconv.FormatInt(int64(window/time.Second), 10)
}
