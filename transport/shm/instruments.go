package shm

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

const scope = "github.com/semproxy/semproxy/transport/shm"

// instruments are the metrics of one server. Refused descriptors are counted by transport, refused demands here.
type instruments struct {
	errors metric.Int64Counter
	gauges metric.Registration
	labels *semconv.TenantLabel
}

// usage is a snapshot for the gauges.
type usage struct{ regions, bytes int64 }

func newInstruments(provider metric.MeterProvider, now func() usage) (*instruments, error) {
	meter := provider.Meter(scope)
	i := &instruments{labels: semconv.NewTenantLabel(0)}
	var err error
	if i.errors, err = meter.Int64Counter(semconv.MetricErrors, metric.WithUnit("{error}")); err != nil {
		return nil, err
	}
	regions, err := meter.Int64ObservableGauge(semconv.MetricSharedRegions, metric.WithUnit("{region}"))
	if err != nil {
		return nil, err
	}
	bytes, err := meter.Int64ObservableGauge(semconv.MetricSharedBytes, metric.WithUnit("By"))
	if err != nil {
		return nil, err
	}
	i.gauges, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		u := now()
		o.ObserveInt64(regions, u.regions)
		o.ObserveInt64(bytes, u.bytes)
		return nil
	}, regions, bytes)
	return i, err
}

// count counts a refused demand. A socket that is not bound to a tenant yet counts as other.
func (i *instruments) count(tenant, code string) {
	label := semconv.Tenant.String(semconv.OtherTenant)
	if tenant != "" {
		label = i.labels.Attribute(tenant)
	}
	i.errors.Add(context.Background(), 1, metric.WithAttributes(semconv.ErrorCode.String(code), label))
}
