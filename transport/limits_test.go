package transport

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

func TestATenantOverItsRateIsToldWhenToComeBack(t *testing.T) {
	var limits atomic.Pointer[Limits]
	limits.Store(&Limits{PagesPerSecond: 0.1})
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(echo), func(c *Config) {
		c.Limiter = limiterFunc(func(tenant string) (Limits, bool) {
			if tenant == "acme" {
				return *limits.Load(), true
			}
			return Limits{}, true
		})
	})
	nc := dial(t, e)
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
	refused := call(t, nc, "kv.acme.v1.compress", nil)
	wantReply(t, refused, CodeRate)
	if ms, err := strconv.Atoi(refused.Header.Get(HeaderRetryAfter)); err != nil || ms < 8000 || ms > 10_000 {
		t.Errorf("retry after: got %q ms, want just under ten seconds", refused.Header.Get(HeaderRetryAfter))
	}
	wantReply(t, call(t, nc, "kv.globex.v1.compress", nil), "")

	limits.Store(&Limits{}) // the policy was reloaded
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
}

func TestBytesInFlightAndTheQueueAreBounded(t *testing.T) {
	g := newGate()
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(g.handle), func(c *Config) {
		c.Workers, c.QueueLength, c.InFlightBytes = 1, 2, 1000
		c.Limiter = limiterFunc(func(string) (Limits, bool) { return Limits{InFlightBytes: 600}, true })
	})
	nc := dial(t, e)
	admitted := []<-chan *nats.Msg{ask(nc, "kv.acme.v1.compress", make([]byte, 400))}
	g.await(t)
	wantReply(t, call(t, nc, "kv.acme.v1.compress", make([]byte, 300)), CodeBytes)
	wantReply(t, call(t, nc, "kv.acme.v1.compress", make([]byte, 601)), CodePageTooLarge)
	admitted = append(admitted, ask(nc, "kv.globex.v1.compress", make([]byte, 500)))
	eventually(t, "the second waits", func() bool { return s.admission.load().queued == 1 })
	wantReply(t, call(t, nc, "kv.third.v1.compress", make([]byte, 550)), CodeBusy)
	admitted = append(admitted, ask(nc, "kv.third.v1.compress", nil))
	eventually(t, "the queue is full", func() bool { return s.admission.load().queued == 2 })
	wantReply(t, call(t, nc, "kv.fourth.v1.compress", nil), CodeBusy)
	close(g.leave)
	for _, r := range admitted {
		wantReply(t, receive(t, r), "")
	}
	wantReply(t, call(t, nc, "kv.acme.v1.compress", make([]byte, 600)), "")
}

func TestATenantThatFillsTheQueueDoesNotStarveAnother(t *testing.T) {
	const queue, pages = 64, 20
	g := newGate()
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(g.handle), func(c *Config) { c.Workers, c.QueueLength = 1, queue })
	nc := dial(t, e)
	hog, light := make(chan *nats.Msg, queue+1), make(chan *nats.Msg, pages)
	send := func(subject string, to chan<- *nats.Msg) {
		go func() {
			msg, err := nc.Request(subject, nil, patience)
			if err != nil {
				t.Errorf("request %s: %v", subject, err)
			}
			to <- msg
		}()
	}
	for range queue + 1 {
		send("kv.hog.v1.compress", hog)
	}
	eventually(t, "the hog fills the queue", func() bool { return s.admission.load().queued == queue })
	g.await(t)
	for range pages {
		send("kv.light.v1.compress", light)
	}
	for range pages { // each of the light tenant's pages takes a place from the hog
		wantReply(t, <-hog, CodeBusy)
	}
	for range 2 * pages { // in 40 turns, 20 are the light tenant's
		g.leave <- struct{}{}
		g.await(t)
	}
	g.leave <- struct{}{}
	for range pages {
		wantReply(t, <-light, "")
	}
	close(g.leave)
	for range queue + 1 - pages {
		wantReply(t, <-hog, "")
	}
}

func TestTenThousandTenantsLeaveBoundedState(t *testing.T) {
	m := newMetrics()
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(echo), func(c *Config) {
		c.MaxTenants, c.QueueLength, c.Workers, c.MeterProvider = 100, 32, 2, m.provider
		c.Limiter = limiterFunc(func(string) (Limits, bool) { return Limits{PagesPerSecond: 1}, false })
	})
	nc := dial(t, e)
	for i := range 10_000 {
		wantReply(t, call(t, nc, fmt.Sprintf("kv.t%d.v1.stat", i), nil), "")
	}
	if got := s.admission.load().tenants; got > 100 {
		t.Errorf("tenants remembered: got %d, want at most 100", got)
	}
	call(t, nc, "kv.t9999.v1.stat", nil)
	if got := len(m.points(t, semconv.MetricErrors)); got > 1 {
		t.Errorf("error series: got %d, want at most 1", got)
	}
}

func TestASlowHandlerOfOneTenantHoldsOnlyItsWorker(t *testing.T) {
	g := newGate()
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(ctx context.Context, tenant string, body []byte) (Reply, error) {
		if tenant == "slow" {
			return g.handle(ctx, tenant, body)
		}
		return Reply{}, nil
	}), func(c *Config) { c.Workers = 2 })
	nc := dial(t, e)
	slow := ask(nc, "kv.slow.v1.compress", nil)
	g.await(t)
	wantReply(t, call(t, nc, "kv.quick.v1.compress", nil), "")
	close(g.leave)
	wantReply(t, receive(t, slow), "")
}
