package limit_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that only the test moves.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time      { return time.Unix(0, c.now.Load()) }
func (c *clock) add(d time.Duration) { c.now.Add(int64(d)) }

func newClock() *clock { c := &clock{}; c.add(time.Hour); return c }

func busy(t *testing.T, err error, code string, wait time.Duration) {
	t.Helper()
	var e *limit.BusyError
	if !errors.As(err, &e) || e.Code != code || e.RetryAfter != wait {
		t.Errorf("got %v, want %s after %v", err, code, wait)
	}
}

func enter(t *testing.T, a *limit.Admission, tenant string, l limit.Limits) *limit.Ticket {
	t.Helper()
	k, err := a.Enter(t.Context(), tenant, l)
	if err != nil {
		t.Fatalf("got %v, want a ticket", err)
	}
	return k
}

func TestRequestsPerSecond(t *testing.T) {
	c := newClock()
	a := limit.New(limit.Options{Now: c.Now})
	l := limit.Limits{RequestsPerSecond: 2}
	enter(t, a, "acme", l).Leave(0)
	enter(t, a, "acme", l).Leave(0)
	_, err := a.Enter(t.Context(), "acme", l)
	busy(t, err, limit.CodeRequests, 500*time.Millisecond)
	enter(t, a, "globex", l).Leave(0) // another tenant has its own
	c.add(500 * time.Millisecond)
	enter(t, a, "acme", l).Leave(0)
	c.add(20 * time.Millisecond) // 0.04 of a request by the old limit, 2 by the new one, which counts from now on
	if _, err = a.Enter(t.Context(), "acme", limit.Limits{RequestsPerSecond: 100}); err == nil {
		t.Error("after the change: got a ticket, want what is left to stay")
	}
	c.add(20 * time.Millisecond)
	enter(t, a, "acme", limit.Limits{RequestsPerSecond: 100}).Leave(-1)
}

func TestTokensPerMinuteAreSettledWithWhatWasUsed(t *testing.T) {
	c := newClock()
	a := limit.New(limit.Options{Now: c.Now})
	l := limit.Limits{TokensPerMinute: 600} // 10 a second
	k := enter(t, a, "acme", l)
	if err := k.Reserve(100); err != nil {
		t.Fatal(err)
	}
	k.Leave(700) // used more than expected: 100 below zero
	k = enter(t, a, "acme", l)
	busy(t, k.Reserve(50), limit.CodeTokens, 15*time.Second)
	k.Leave(0)
	c.add(15 * time.Second)
	k = enter(t, a, "acme", l)
	if err := k.Reserve(50); err != nil {
		t.Fatalf("after the wait: got %v, want nil", err)
	}
	k.Leave(10) // used fewer: 40 come back
	k = enter(t, a, "acme", l)
	if err := k.Reserve(40); err != nil {
		t.Errorf("what was not used: got %v, want nil", err)
	}
	k.Leave(-1)
	c.add(time.Hour)
	k = enter(t, a, "acme", l)
	if err := k.Reserve(5000); err != nil { // larger than the burst: the whole of a full bucket, and then a debt
		t.Errorf("got %v, want nil", err)
	}
	k.Leave(-1)
	k = enter(t, a, "acme", l)
	busy(t, k.Reserve(1), limit.CodeTokens, 440100*time.Millisecond)
	k.Leave(0)
}

func TestWhoWaitsIsServedInOrderAndTheQueueIsBounded(t *testing.T) {
	a := limit.New(limit.Options{})
	l := limit.Limits{Concurrent: 1, Queue: 2}
	first := enter(t, a, "acme", l)
	var order []int
	var mu sync.Mutex
	var group sync.WaitGroup
	for i := range 2 {
		group.Go(func() {
			k, err := a.Enter(context.Background(), "acme", l)
			if err != nil {
				t.Errorf("got %v, want a turn", err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			k.Leave(0)
		})
		waitFor(t, func() bool { return a.Loads()["acme"].Waiting == i+1 })
	}
	_, err := a.Enter(t.Context(), "acme", l)
	busy(t, err, limit.CodeQueueFull, time.Second)
	enter(t, a, "globex", l).Leave(0)
	first.Leave(0)
	group.Wait()
	if len(order) != 2 || order[0] != 0 {
		t.Errorf("got order %v, want [0 1]", order)
	}
	if got := a.Loads()["acme"]; got != (limit.Load{}) {
		t.Errorf("at the end: got %+v, want nobody", got)
	}
}

// waitFor yields until the condition holds.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come to hold")
		}
		runtime.Gosched()
	}
}

func TestWhoGivesUpWaitingLeavesNoTrace(t *testing.T) {
	a := limit.New(limit.Options{QueueTimeout: time.Millisecond})
	l := limit.Limits{Concurrent: 1}
	first := enter(t, a, "acme", l)
	_, err := a.Enter(t.Context(), "acme", l)
	busy(t, err, limit.CodeQueueWait, time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Enter(ctx, "acme", l); err == nil {
		t.Error("got nil, want the context's error")
	}
	first.Leave(0)
	enter(t, a, "acme", l).Leave(0)
}

func TestAllTenantsTogetherAreBounded(t *testing.T) {
	a := limit.New(limit.Options{Concurrent: 1})
	k := enter(t, a, "acme", limit.Limits{})
	_, err := a.Enter(t.Context(), "globex", limit.Limits{})
	busy(t, err, limit.CodeConcurrent, time.Second)
	k.Leave(0)
	enter(t, a, "globex", limit.Limits{}).Leave(0)
}

func TestManyAtOnceNeverExceedTheLimit(t *testing.T) {
	a := limit.New(limit.Options{QueueTimeout: time.Minute})
	l := limit.Limits{Concurrent: 3, Queue: 1000}
	var active, most, served atomic.Int64
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			if i%5 == 0 {
				cancel()
			}
			defer cancel()
			k, err := a.Enter(ctx, "acme", l)
			if err != nil {
				return
			}
			if n := active.Add(1); n > 3 {
				most.Store(n)
			}
			served.Add(1)
			active.Add(-1)
			k.Leave(1)
		})
	}
	group.Wait()
	if most.Load() > 0 || served.Load() < 160 || a.Loads()["acme"] != (limit.Load{}) {
		t.Errorf("got %d at once, %d served, %+v left", most.Load(), served.Load(), a.Loads()["acme"])
	}
}

func TestBudgetsOfAnHourAndADay(t *testing.T) {
	c := newClock()
	a := limit.New(limit.Options{Now: c.Now})
	l := limit.Limits{TokensPerMinute: 100, TokensPerHour: 250, TokensPerDay: 300}
	use := func(n int) error {
		k := enter(t, a, "acme", l)
		err := k.Reserve(n)
		if err == nil {
			k.Leave(n)
		} else {
			k.Leave(0)
		}
		return err
	}
	for range 2 {
		if err := use(100); err != nil {
			t.Fatalf("got %v, want nil", err)
		}
		c.add(time.Minute)
	}
	var e *limit.BusyError
	if err := use(90); !errors.As(err, &e) || e.Code != limit.CodeTokensHour || e.RetryAfter < time.Minute {
		t.Errorf("after 200 in two minutes: got %v, want %s", err, limit.CodeTokensHour)
	}
	if err := use(50); err != nil {
		t.Errorf("what is left of the hour, as nothing was taken by what was refused: got %v, want nil", err)
	}
	c.add(time.Hour)
	if err := use(100); !errors.As(err, &e) || e.Code != limit.CodeTokensDay {
		t.Errorf("an hour later: got %v, want %s", err, limit.CodeTokensDay)
	}
}

func TestShadowedLimitsRefuseNothingAndSaySo(t *testing.T) {
	c := newClock()
	a := limit.New(limit.Options{Now: c.Now})
	l := limit.Limits{RequestsPerSecond: 1, TokensPerMinute: 10, Shadow: true}
	first := enter(t, a, "acme", l)
	if err := first.Reserve(10); err != nil || first.Shadowed != nil {
		t.Errorf("within the limits: got %v, %v", err, first.Shadowed)
	}
	second := enter(t, a, "acme", l)
	if err := second.Reserve(10); err != nil || len(second.Shadowed) != 2 || second.Shadowed[0] != limit.CodeRequests || second.Shadowed[1] != limit.CodeTokens {
		t.Errorf("beyond them: got %v, %v, want both codes", err, second.Shadowed)
	}
	first.Leave(10)
	second.Leave(10)
}
