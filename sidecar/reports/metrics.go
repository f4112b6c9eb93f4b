package reports

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Options of both ends. The zero value is useful.
type Options struct {
	Meter  metric.MeterProvider
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Meter == nil {
		o.Meter = noop.NewMeterProvider()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// counts are the metrics of one end.
type counts struct{ reports metric.Int64Counter }

// newCounts has the outcomes at zero from the start.
func newCounts(mp metric.MeterProvider, connected func() bool, outcomes ...string) (counts, error) {
	meter := mp.Meter("github.com/semproxy/semproxy/sidecar/reports")
	reports, err := meter.Int64Counter(semconv.MetricReports)
	if err != nil {
		return counts{}, err
	}
	_, err = meter.Int64ObservableGauge(semconv.MetricReportsLink, metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		up := int64(0)
		if connected() {
			up = 1
		}
		o.Observe(up)
		return nil
	}))
	c := counts{reports}
	for _, outcome := range outcomes {
		c.add(outcome, 0)
	}
	return c, err
}

func (c counts) add(outcome string, n int64) {
	c.reports.Add(context.Background(), n, metric.WithAttributes(semconv.Outcome.String(outcome)))
}
