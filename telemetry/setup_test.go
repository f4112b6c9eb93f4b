package telemetry_test

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

func TestABadConfigurationIsRefusedWithoutQuotingSecrets(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  telemetry.Config
		env  map[string]string
		want string
	}{
		"log level":            {cfg: telemetry.Config{LogLevel: "loud"}, want: "log level"},
		"log format":           {cfg: telemetry.Config{LogFormat: "xml"}, want: "log format"},
		"traces exporter":      {env: map[string]string{"OTEL_TRACES_EXPORTER": "pigeon"}, want: "traces' exporter"},
		"metrics exporter":     {env: map[string]string{"OTEL_METRICS_EXPORTER": "pigeon"}, want: "metrics' exporter"},
		"protocol":             {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "morse"}, want: "exporter"},
		"endpoint, no scheme":  {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "hunter2:4318"}, want: "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"endpoint, garbage":    {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://[hunter2"}, want: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		"endpoint, password":   {env: map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@127.0.0.1:1"}, want: "credentials"},
		"headers, no value":    {env: map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "a=b,hunter2"}, want: "entry 2"},
		"headers, bad percent": {env: map[string]string{"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "key=hunter2%zz"}, want: "OTEL_EXPORTER_OTLP_METRICS_HEADERS"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.env {
				t.Setenv(key, value)
			}
			var log buffer
			c.cfg.LogOutput = &log
			_, err := telemetry.Setup(t.Context(), c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("Setup: got %v, want an error with %q", err, c.want)
			}
			if said := err.Error() + log.String(); strings.Contains(said, "hunter2") {
				t.Errorf("the secret was told: %s", said)
			}
		})
	}
}

func TestExtraProcessorsSeeEverySpan(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tel := setup(t, telemetry.Config{SpanProcessors: []sdktrace.SpanProcessor{recorder}})
	onePage(t, tel)
	if got := len(recorder.Ended()); got != 2 {
		t.Errorf("spans: got %d, want 2", got)
	}
}

func TestTheTraceTravelsInW3CHeaders(t *testing.T) {
	tel := setup(t, telemetry.Config{})
	ctx, span := tel.TracerProvider.Tracer("test").Start(t.Context(), semconv.SpanSend)
	defer span.End()
	carrier := propagation.MapCarrier{}
	tel.Propagator.Inject(ctx, carrier)
	if carrier["traceparent"] == "" {
		t.Fatalf("carrier: got %v, want a traceparent", carrier)
	}
	remote := trace.SpanContextFromContext(tel.Propagator.Extract(t.Context(), carrier))
	if got, want := remote.TraceID(), span.SpanContext().TraceID(); got != want {
		t.Errorf("trace id: got %v, want %v", got, want)
	}
}
