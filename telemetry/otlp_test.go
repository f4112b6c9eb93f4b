package telemetry_test

import (
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/semproxy/semproxy/telemetry"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// collector is an OTLP/HTTP receiver: what a real collector decodes, it decodes.
type collector struct {
	server *httptest.Server

	mu       sync.Mutex
	spans    []string
	traces   []string
	services []string
	metrics  []string
	requests int
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		var request collectortrace.ExportTraceServiceRequest
		if !decode(t, w, r, &request) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		for _, resource := range request.ResourceSpans {
			for _, attr := range resource.Resource.Attributes {
				if attr.Key == "service.name" {
					c.services = append(c.services, attr.Value.GetStringValue())
				}
			}
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					c.spans = append(c.spans, span.Name)
					c.traces = append(c.traces, trace.TraceID(span.TraceId).String())
				}
			}
		}
	})
	mux.HandleFunc("POST /v1/metrics", func(w http.ResponseWriter, r *http.Request) {
		var request collectormetrics.ExportMetricsServiceRequest
		if !decode(t, w, r, &request) {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		for _, resource := range request.ResourceMetrics {
			for _, scope := range resource.ScopeMetrics {
				for _, m := range scope.Metrics {
					c.metrics = append(c.metrics, m.Name)
				}
			}
		}
	})
	c.server = httptest.NewServer(mux)
	t.Cleanup(c.server.Close)
	return c
}

func decode(t *testing.T, w http.ResponseWriter, r *http.Request, into proto.Message) bool {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			t.Errorf("gzip: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return false
		}
		body = unzipped
	}
	blob, err := io.ReadAll(body)
	if err == nil {
		err = proto.Unmarshal(blob, into)
	}
	if err != nil {
		t.Errorf("%s: %v", r.URL.Path, err)
		w.WriteHeader(http.StatusBadRequest)
	}
	return err == nil
}

func (c *collector) got() collector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return collector{
		spans: slices.Clone(c.spans), traces: slices.Clone(c.traces), services: slices.Clone(c.services),
		metrics: slices.Clone(c.metrics), requests: c.requests,
	}
}

func onePage(t *testing.T, tel *telemetry.Telemetry) trace.TraceID {
	t.Helper()
	tracer := tel.TracerProvider.Tracer("test")
	ctx, page := tracer.Start(t.Context(), semconv.SpanPage, trace.WithSpanKind(trace.SpanKindConsumer))
	_, step := tracer.Start(ctx, semconv.SpanCompress)
	step.End()
	page.End()
	pages, err := tel.MeterProvider.Meter("test").Int64Counter(semconv.MetricPages)
	if err != nil {
		t.Fatal(err)
	}
	pages.Add(ctx, 1)
	return page.SpanContext().TraceID()
}

func TestSpansAndMetricsReachTheCollectorOfTheEnvironment(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.server.URL)
	tel := setup(t, telemetry.Config{ServiceName: "semproxy-test"})
	id := onePage(t, tel)
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: got %v, want nil", err)
	}
	got := c.got()
	if want := []string{semconv.SpanCompress, semconv.SpanPage}; !slices.Equal(got.spans, want) {
		t.Errorf("spans: got %v, want %v", got.spans, want)
	}
	if want := []string{id.String(), id.String()}; !slices.Equal(got.traces, want) {
		t.Errorf("trace ids: got %v, want %v", got.traces, want)
	}
	if want := []string{"semproxy-test"}; !slices.Equal(got.services, want) {
		t.Errorf("service.name: got %v, want %v", got.services, want)
	}
	if !slices.Contains(got.metrics, semconv.MetricPages) {
		t.Errorf("metrics: got %v, want %s among them", got.metrics, semconv.MetricPages)
	}
}

func TestShutdownExportsWhatIsLeft(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.server.URL+"/v1/traces")
	tel := setup(t, telemetry.Config{})
	onePage(t, tel)
	for range 2 {
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Fatalf("Shutdown: got %v, want nil", err)
		}
	}
	if got := c.got(); len(got.spans) != 2 || len(got.metrics) != 0 {
		t.Errorf("got spans %v and metrics %v, want 2 spans and no metrics: only the traces' endpoint is set", got.spans, got.metrics)
	}
}

func TestTheEnvironmentNamesTheServiceAndTheSampler(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.server.URL)
	t.Setenv("OTEL_SERVICE_NAME", "by-environment")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	tel := setup(t, telemetry.Config{ServiceName: "by-config"})
	onePage(t, tel)
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: got %v, want nil", err)
	}
	if got := c.got().spans; len(got) != 0 {
		t.Errorf("spans: got %v, want none", got)
	}
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	tel = setup(t, telemetry.Config{ServiceName: "by-config"})
	onePage(t, tel)
	if err := tel.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: got %v, want nil", err)
	}
	if got, want := c.got().services, []string{"by-environment"}; !slices.Equal(got, want) {
		t.Errorf("service.name: got %v, want %v", got, want)
	}
}

// An exporter that existed would fail here, loudly: no collector listens at its default address, and the one of this
// test counts its requests.
func TestNothingIsExportedUnlessTheEnvironmentAsks(t *testing.T) {
	for name, set := range map[string]map[string]string{
		"nothing set":         {},
		"exporters none":      {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR"},
		"disabled":            {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "COLLECTOR"},
		"prometheus is ours":  {"OTEL_METRICS_EXPORTER": "prometheus"},
		"only unrelated ones": {"OTEL_SERVICE_NAME": "x", "OTEL_RESOURCE_ATTRIBUTES": "a=b", "OTEL_TRACES_SAMPLER": "always_on"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollector(t)
			for key, value := range set {
				t.Setenv(key, strings.ReplaceAll(value, "COLLECTOR", c.server.URL))
			}
			var log buffer
			tel := setup(t, telemetry.Config{LogOutput: &log})
			if id := onePage(t, tel); !id.IsValid() {
				t.Error("trace id: got none, want one for logs and replies")
			}
			if err := tel.Flush(t.Context()); err != nil {
				t.Errorf("Flush: got %v, want nil", err)
			}
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: got %v, want nil", err)
			}
			if got := c.got().requests; got != 0 || log.String() != "" {
				t.Errorf("got %d requests and the log %q, want none", got, log.String())
			}
		})
	}
}

func TestACollectorThatHangsDoesNotHoldTheShutdown(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", server.URL)
	tel := setup(t, telemetry.Config{})
	onePage(t, tel)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := tel.Shutdown(ctx); err == nil {
		t.Error("Shutdown: got nil, want an error: the spans were not delivered")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Shutdown took %v, want about 50ms", took)
	}
}
