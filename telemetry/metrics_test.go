package telemetry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/telemetry"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// recordAll makes every instrument of semconv and records one value in each.
func recordAll(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	meter := tel.MeterProvider.Meter("test")
	ctx, span := tel.TracerProvider.Tracer("test").Start(t.Context(), semconv.SpanPage)
	defer span.End()
	attrs := metric.WithAttributes(semconv.NewTenantLabel(0).Attribute("acme"))
	for _, m := range semconv.Metrics() {
		unit, description := metric.WithUnit(m.Unit), metric.WithDescription(m.Description)
		var err error
		switch m.Kind {
		case semconv.Counter:
			var c metric.Int64Counter
			c, err = meter.Int64Counter(m.Name, unit, description)
			c.Add(ctx, 1, attrs)
		case semconv.Histogram:
			var h metric.Float64Histogram
			h, err = meter.Float64Histogram(m.Name, unit, description)
			h.Record(ctx, 0.3, attrs)
		case semconv.Gauge:
			var g metric.Int64Gauge
			g, err = meter.Int64Gauge(m.Name, unit, description)
			g.Record(ctx, 1)
		default:
			t.Fatalf("%s: kind %q is unknown", m.Name, m.Kind)
		}
		if err != nil {
			t.Fatalf("%s: got %v, want nil", m.Name, err)
		}
	}
}

func scrape(t *testing.T, tel *telemetry.Telemetry, accept string) string {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	request.Header.Set("Accept", accept)
	response := httptest.NewRecorder()
	tel.Prometheus.ServeHTTP(response, request)
	if response.Code != http.StatusOK {
		t.Fatalf("status: got %d, want 200", response.Code)
	}
	return response.Body.String()
}

// The names that a person types into Prometheus are in the manual's table and in the scrape.
func TestPrometheusShowsEveryDocumentedName(t *testing.T) {
	tel := setup(t, telemetry.Config{})
	recordAll(t, tel)
	text := scrape(t, tel, "text/plain")
	rows := regexp.MustCompile("(?m)^\\| `([a-z]+[a-z._]+)` \\| `([a-z]+_[a-z_]+)` \\|").FindAllStringSubmatch(manual(t), -1)
	documented := map[string]string{}
	for _, row := range rows {
		documented[row[1]] = row[2]
	}
	for _, m := range semconv.Metrics() {
		name, ok := documented[m.Name]
		if !ok {
			t.Errorf("%s has no row in the manual's table of metrics", m.Name)
			continue
		}
		if !strings.Contains(text, "# TYPE "+name+" ") || !strings.Contains(text, "# HELP "+name+" "+m.Description) {
			t.Errorf("%s: the scrape has no %s with its description", m.Name, name)
		}
	}
	for _, other := range []string{"go_goroutines", "process_resident_memory_bytes", "target_info"} {
		if !strings.Contains(text, other) {
			t.Errorf("the scrape has no %s", other)
		}
	}
}

func TestHistogramsHaveTheirOwnBucketsAndExemplars(t *testing.T) {
	tel := setup(t, telemetry.Config{SpanProcessors: nil})
	recordAll(t, tel)
	text := scrape(t, tel, "application/openmetrics-text; version=1.0.0")
	for name, bounds := range map[string][]string{
		"semproxy_ratio":                    {"0.125", "0.25", "0.5", "1.0"},
		"semproxy_fidelity_attention_error": {"0.001", "0.1", "1.0"},
		"semproxy_fidelity_key_similarity":  {"0.9", "0.99", "1.0"},
		"semproxy_page_duration_seconds":    {"0.0001", "10.0"},
	} {
		for _, bound := range bounds {
			if line := fmt.Sprintf(`%s_bucket{semproxy_tenant="acme",le="%s"}`, name, bound); !strings.Contains(text, line) {
				t.Errorf("the scrape has no %s", line)
			}
		}
	}
	if !strings.Contains(text, `# {span_id=`) && !strings.Contains(text, `# {trace_id=`) {
		t.Error("the scrape has no exemplar with its trace")
	}
}
