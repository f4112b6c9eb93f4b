package telemetry

import (
	"context"
	"fmt"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// newTracerProvider samples by OTEL_TRACES_SAMPLER (default: all, following the parent) and exports in batches by
// OTEL_BSP_*; a full queue drops spans and never waits.
func newTracerProvider(ctx context.Context, cfg Config, env environment, res *resource.Resource) (*sdktrace.TracerProvider, error) {
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	for _, processor := range cfg.SpanProcessors {
		options = append(options, sdktrace.WithSpanProcessor(processor))
	}
	if env.traces {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("start the traces' exporter: %w", err)
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	return sdktrace.NewTracerProvider(options...), nil
}
