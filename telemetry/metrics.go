package telemetry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// seriesLimit bounds the series of one instrument: further attribute sets are counted together. It leaves room for
// every tenant label with a handful of outcomes.
const seriesLimit = 16 * (semconv.DefaultTenantLabels + 1)

// newMeterProvider has a registry of its own: nothing that another package registers globally is served.
func newMeterProvider(ctx context.Context, cfg Config, env environment, res *resource.Resource) (*sdkmetric.MeterProvider, http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	scraped, err := promexporter.New(promexporter.WithRegisterer(registry), promexporter.WithoutScopeInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("start the Prometheus exporter: %w", err)
	}
	options := []sdkmetric.Option{
		sdkmetric.WithResource(res), sdkmetric.WithReader(scraped),
		sdkmetric.WithView(views()...), sdkmetric.WithCardinalityLimit(seriesLimit),
	}
	for _, reader := range cfg.MetricReaders {
		options = append(options, sdkmetric.WithReader(reader))
	}
	if env.metrics {
		reader, err := autoexport.NewMetricReader(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("start the metrics' exporter: %w", err)
		}
		options = append(options, sdkmetric.WithReader(reader))
	}
	// OpenMetrics is what carries exemplars: the trace behind a bucket.
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: registry})
	return sdkmetric.NewMeterProvider(options...), handler, nil
}

// views give each histogram of semconv its buckets, whoever makes the instrument.
func views() []sdkmetric.View {
	var views []sdkmetric.View
	for _, m := range semconv.Metrics() {
		if m.Kind == semconv.Histogram {
			views = append(views, sdkmetric.NewView(sdkmetric.Instrument{Name: m.Name},
				sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: m.Buckets}}))
		}
	}
	return views
}
