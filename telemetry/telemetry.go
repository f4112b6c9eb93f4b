package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// shutdownLimit bounds Shutdown where its context does not.
const shutdownLimit = 5 * time.Second

// Config says who is speaking and how it logs. The zero value of each field is useful.
type Config struct {
	ServiceName string // OTEL_SERVICE_NAME goes first; "": semproxy
	Version     string

	LogLevel  string    // debug, info, warn, error; "": info
	LogFormat string    // text, json; "": text
	LogOutput io.Writer // nil: the process's standard error

	// SpanProcessors get every sampled span, beside what the environment asks for.
	SpanProcessors []sdktrace.SpanProcessor
	// MetricReaders read the metrics, beside Prometheus and what the environment asks for.
	MetricReaders []sdkmetric.Reader
}

// Telemetry is what Setup started. All of it is safe for concurrent use.
type Telemetry struct {
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	Propagator     propagation.TextMapPropagator // W3C trace context and baggage
	Prometheus     http.Handler                  // serves every metric of MeterProvider, of the Go runtime and of the process
	Logger         *slog.Logger                  // adds trace_id and span_id of the context that a line is logged with

	traces   *sdktrace.TracerProvider
	metrics  *sdkmetric.MeterProvider
	shutdown func(context.Context) error
}

// Setup starts telemetry by cfg and the OTEL_* environment. It takes over OpenTelemetry's global error handler, which
// then writes to the log, and touches no other global. The caller calls Shutdown once on success; on an error nothing
// is left running.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	logger, err := newLogger(cfg)
	if err != nil {
		return nil, err
	}
	env, err := readEnvironment()
	if err != nil {
		return nil, err
	}
	res, err := newResource(ctx, cfg)
	if err != nil {
		return nil, err
	}
	takeDiagnostics(logger)
	traces, err := newTracerProvider(ctx, cfg, env, res)
	if err != nil {
		return nil, err
	}
	metrics, handler, err := newMeterProvider(ctx, cfg, env, res)
	if err != nil {
		return nil, errors.Join(err, traces.Shutdown(ctx))
	}
	t := &Telemetry{
		TracerProvider: traces, MeterProvider: metrics, Prometheus: handler, Logger: logger,
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
		traces:     traces, metrics: metrics,
	}
	var once sync.Once
	t.shutdown = func(ctx context.Context) (err error) {
		once.Do(func() { err = errors.Join(traces.Shutdown(ctx), metrics.Shutdown(ctx)) })
		return err
	}
	return t, nil
}

// Flush exports what has been recorded so far.
func (t *Telemetry) Flush(ctx context.Context) error {
	if err := errors.Join(t.traces.ForceFlush(ctx), t.metrics.ForceFlush(ctx)); err != nil {
		return fmt.Errorf("flush telemetry: %w", err)
	}
	return nil
}

// Shutdown exports what is left and stops the exporters, within ctx and five seconds. Later calls do nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, shutdownLimit)
	defer cancel()
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("shut telemetry down: %w", err)
	}
	return nil
}

// newResource describes this process. The environment's OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win. The
// command line is not part of it: it may hold secrets.
func newResource(ctx context.Context, cfg Config) (*resource.Resource, error) {
	name := cfg.ServiceName
	if name == "" {
		name = "semproxy"
	}
	own := []attribute.KeyValue{attribute.String("service.name", name)}
	if cfg.Version != "" {
		own = append(own, attribute.String("service.version", cfg.Version))
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithAttributes(own...), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this process: %w", err)
	}
	return res, nil
}

// takeDiagnostics sends OpenTelemetry's errors to the log. Its diagnostics of configuration are dropped: they quote
// values of the environment, headers with credentials among them; readEnvironment has checked those already.
func takeDiagnostics(logger *slog.Logger) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		logger.Warn("telemetry_error", "error", err.Error())
	}))
	setZero(otel.SetLogger)
}

// setZero passes the zero value: a logger that writes nothing.
func setZero[T any](set func(T)) {
	var zero T
	set(zero)
}
