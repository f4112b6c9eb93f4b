package transport

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Reasons of the counter of messages that got no reply.
const (
	droppedNoReply      = "no_reply"       // the message named no subject to reply to
	droppedBadReply     = "bad_reply"      // it named one that this tenant may not use
	droppedSlowConsumer = "slow_consumer"  // the client library had no room left
	droppedPublish      = "publish_failed" // NATS did not take the reply
)

// instruments are the metrics of one server. A tenant's name is an attribute only where the policy names the tenant;
// all others are counted together, so that senders cannot make series.
type instruments struct {
	errors   metric.Int64Counter
	dropped  metric.Int64Counter
	panics   metric.Int64Counter
	duration metric.Float64Histogram
	gauges   metric.Registration
	labels   *semconv.TenantLabel
}

func newInstruments(provider metric.MeterProvider, loadNow func() load) (*instruments, error) {
	meter := provider.Meter(scope)
	i := instruments{labels: semconv.NewTenantLabel(0)}
	known := make(map[string]semconv.Metric)
	for _, m := range semconv.Metrics() {
		known[m.Name] = m
	}
	var faults [6]error
	var queue, bytes metric.Int64ObservableGauge
	m := known[semconv.MetricErrors]
	i.errors, faults[0] = meter.Int64Counter(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit))
	m = known[semconv.MetricDropped]
	i.dropped, faults[1] = meter.Int64Counter(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit))
	m = known[semconv.MetricPanics]
	i.panics, faults[2] = meter.Int64Counter(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit))
	m = known[semconv.MetricPageDuration]
	i.duration, faults[3] = meter.Float64Histogram(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit),
		metric.WithExplicitBucketBoundaries(m.Buckets...))
	m = known[semconv.MetricQueueDepth]
	queue, faults[4] = meter.Int64ObservableGauge(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit))
	m = known[semconv.MetricInFlightBytes]
	bytes, faults[5] = meter.Int64ObservableGauge(m.Name, metric.WithDescription(m.Description), metric.WithUnit(m.Unit))
	if err := errors.Join(faults[:]...); err != nil {
		return nil, err
	}
	var err error
	i.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := loadNow()
		o.ObserveInt64(queue, int64(now.queued))
		o.ObserveInt64(bytes, now.bytes)
		return nil
	}, queue, bytes)
	return &i, err
}

// label is the tenant as a metric's attribute.
func (i *instruments) label(tenant string, named bool) attribute.KeyValue {
	if !named {
		return semconv.Tenant.String(semconv.OtherTenant)
	}
	return i.labels.Attribute(tenant)
}

func (i *instruments) countError(ctx context.Context, r *request, code string) {
	i.errors.Add(ctx, 1, metric.WithAttributes(semconv.ErrorCode.String(code), r.label))
}

func (i *instruments) countDropped(reason string, n int64) {
	i.dropped.Add(context.Background(), n, metric.WithAttributes(semconv.Reason.String(reason)))
}

// time records a stage of a page; only compress requests carry pages.
func (i *instruments) time(ctx context.Context, r *request, stage string, took time.Duration) {
	if r.op == OpCompress {
		i.duration.Record(ctx, took.Seconds(), metric.WithAttributes(semconv.Stage.String(stage)))
	}
}

// close unregisters the gauges.
func (i *instruments) close() error { return i.gauges.Unregister() }
