package forward_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/telemetry"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// collector is an OTLP/HTTP receiver.
type collector struct {
	*httptest.Server

	mu    sync.Mutex
	spans map[string]*tracepb.Span // the first of each name
	raw   []byte                   // all that was exported
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{spans: map[string]*tracepb.Span{}}
	read := func(r *http.Request, into proto.Message) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			unzipped, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Errorf("gzip: %v", err)
				return
			}
			body = unzipped
		}
		blob, err := io.ReadAll(body)
		if err == nil {
			err = proto.Unmarshal(blob, into)
		}
		if err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		c.raw = append(c.raw, blob...)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(_ http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		var request collectortrace.ExportTraceServiceRequest
		read(r, &request)
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				for _, span := range scope.Spans {
					if c.spans[span.Name] == nil {
						c.spans[span.Name] = span
					}
				}
			}
		}
	})
	mux.HandleFunc("POST /v1/metrics", func(_ http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		read(r, &collectormetrics.ExportMetricsServiceRequest{})
	})
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

// One trace: the client's span, the proxy's, the decision, the engine. And nothing of the message or the key in it.
func TestOneTraceWithoutContent(t *testing.T) {
	c := startCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	log := &buffer{}
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{LogOutput: log, LogLevel: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(cfg *forward.Config, l *forward.ServerConfig) {
		cfg.Tracer, cfg.Meter, cfg.Propagator, cfg.Logger = tel.TracerProvider, tel.MeterProvider, tel.Propagator, tel.Logger
		l.Logger = tel.Logger
	})
	const marker = "xyzzy-secret-marker"
	ctx, client := tel.TracerProvider.Tracer("client").Start(t.Context(), "client")
	carrier := propagation.MapCarrier{}
	tel.Propagator.Inject(ctx, carrier)
	headers := []string{"traceparent: " + carrier["traceparent"], "X-Request-Id: traced"}
	for _, rest := range []string{"", `,"stream":true`} {
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat(marker, 200, rest), headers...); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	// What is refused, what fails and what is unknown leaves no content behind either.
	s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"model":"`+marker)
	s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"model":{"`+marker+`":1}}`)
	s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("die "+marker, 1, `,"stream":true`))
	s.call(t, "GET", "/v1/models", "sp-"+marker, "")
	s.call(t, "GET", "/"+marker, acmeKey, "")
	s.done(t)
	client.End()
	text := scrape(t, tel)
	if err := tel.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}

	want := client.SpanContext().TraceID()
	c.wantChain(t, want, map[string]string{
		"client": "", "chat llama-3": "client", semconv.SpanDecide: "chat llama-3", semconv.SpanEngine: "chat llama-3",
	})
	if got := e.requests()[0].header.Get("Traceparent"); !strings.Contains(got, want.String()) {
		t.Errorf("the engine got %s, want trace %s", got, want)
	}
	var body struct {
		KV forward.KVParams `json:"kv_transfer_params"`
	}
	if err := json.Unmarshal([]byte(e.requests()[0].body), &body); err != nil || !strings.Contains(body.KV.Traceparent, want.String()) {
		t.Errorf("the pages' parent: got %q, %v, want the same trace", body.KV.Traceparent, err)
	}
	if r, _ := s.ring.Get("traced"); r.TraceID != want.String() {
		t.Errorf("the record's trace: got %s, want %s", r.TraceID, want)
	}
	for name, where := range map[string]string{
		"the exported telemetry": string(c.raw), "the log": log.String(), "the metrics": text, "the records": fmt.Sprintf("%+v", s.ring.List()),
	} {
		for _, secret := range []string{marker, acmeKey, strings.TrimPrefix(acmeKey, "sp-")} {
			if strings.Contains(where, secret) {
				t.Errorf("%q is in %s", secret, name)
			}
		}
	}
	wantMetrics(t, text, want)
}

// wantChain reports spans that are missing, in another trace, or under another parent than the map, from name to parent, says.
func (c *collector) wantChain(t *testing.T, want trace.TraceID, parents map[string]string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, parent := range parents {
		span := c.spans[name]
		if span == nil {
			t.Fatalf("no span %s among %v", name, c.spans)
		}
		if trace.TraceID(span.TraceId) != want {
			t.Errorf("%s: got trace %x, want %s", name, span.TraceId, want)
		}
		if parent != "" && !bytes.Equal(span.ParentSpanId, c.spans[parent].SpanId) {
			t.Errorf("%s: got parent %x, want %s %x", name, span.ParentSpanId, parent, c.spans[parent].SpanId)
		}
	}
}

// wantMetrics reports what two chats and a refusal have not left in the metrics' text, the trace as an exemplar included.
func wantMetrics(t *testing.T, text string, exemplar trace.TraceID) {
	t.Helper()
	for _, want := range []string{
		`http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/v1/chat/completions",semproxy_tenant="acme"}`,
		`gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="vllm",gen_ai_request_model="llama-3",gen_ai_token_type="output",semproxy_tenant="acme"} 6`,
		`gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="vllm",gen_ai_request_model="llama-3",semproxy_tenant="acme"} 1`,
		`gen_ai_server_time_per_output_token_seconds_count`, `semproxy_gate_decisions_total{semproxy_gate="learning"} 2`,
		`semproxy_proxy_refused_total{semproxy_error_code="request.bad_json"} 1`, `semproxy_proxy_active{semproxy_tenant="acme"} 0`,
		`trace_id="` + exemplar.String(),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%.6000s", text)
	}
}

func scrape(t *testing.T, tel *telemetry.Telemetry) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	tel.Prometheus.ServeHTTP(w, r)
	return w.Body.String()
}
