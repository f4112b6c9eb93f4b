package transport

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// testMetrics reads what a server records.
type testMetrics struct {
	reader   *sdkmetric.ManualReader
	provider *sdkmetric.MeterProvider
}

func newMetrics() *testMetrics {
	reader := sdkmetric.NewManualReader()
	return &testMetrics{reader, sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}
}

func (m *testMetrics) points(t testing.TB, name string) []metricdata.DataPoint[int64] {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &all); err != nil {
		t.Fatalf("collect metrics: %v", err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, one := range scope.Metrics {
			if one.Name != name {
				continue
			}
			switch data := one.Data.(type) {
			case metricdata.Sum[int64]:
				return data.DataPoints
			case metricdata.Gauge[int64]:
				return data.DataPoints
			}
		}
	}
	return nil
}

// sum adds the points of a metric whose attribute key has value; "" takes all.
func (m *testMetrics) sum(t testing.TB, name, key, value string) (n int64) {
	t.Helper()
	for _, p := range m.points(t, name) {
		if v, ok := p.Attributes.Value(attribute.Key(key)); key == "" || (ok && v.AsString() == value) {
			n += p.Value
		}
	}
	return n
}

func TestErrorsAreCountedByCodeAndTenantsThatThePolicyNames(t *testing.T) {
	m := newMetrics()
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		return Reply{}, &Error{code: "page.bad_dtype", text: "x"}
	}), func(c *Config) {
		c.MeterProvider = m.provider
		c.Limiter = limiterFunc(func(tenant string) (Limits, bool) { return Limits{}, tenant == "acme" })
	})
	nc := dial(t, e)
	for _, tenant := range []string{"acme", "stranger1", "stranger2"} {
		call(t, nc, "kv."+tenant+".v1.compress", nil)
	}
	eventually(t, "three errors are counted", func() bool {
		return m.sum(t, semconv.MetricErrors, string(semconv.ErrorCode), "page.bad_dtype") == 3
	})
	for tenant, want := range map[string]int64{"acme": 1, "other": 2, "stranger1": 0} {
		if got := m.sum(t, semconv.MetricErrors, string(semconv.Tenant), tenant); got != want {
			t.Errorf("errors of %s: got %d, want %d", tenant, got, want)
		}
	}
}

func TestGaugesShowWhatWaitsAndIsInFlight(t *testing.T) {
	m := newMetrics()
	g := newGate()
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(g.handle), func(c *Config) { c.MeterProvider, c.Workers = m.provider, 1 })
	nc := dial(t, e)
	replies := []<-chan *nats.Msg{ask(nc, "kv.a.v1.compress", make([]byte, 10))}
	g.await(t)
	replies = append(replies, ask(nc, "kv.a.v1.compress", make([]byte, 5)), ask(nc, "kv.b.v1.compress", make([]byte, 5)))
	eventually(t, "two wait", func() bool { return s.admission.load().queued == 2 })
	if got := m.sum(t, semconv.MetricQueueDepth, "", ""); got != 2 {
		t.Errorf("queue: got %d, want 2", got)
	}
	if got := m.sum(t, semconv.MetricInFlightBytes, "", ""); got != 20 {
		t.Errorf("bytes in flight: got %d, want 20", got)
	}
	close(g.leave)
	for _, r := range replies {
		wantReply(t, receive(t, r), "")
	}
}
