package transport

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

const (
	parentTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentSpan  = "00f067aa0ba902b7"
)

func newTraces() (*tracetest.InMemoryExporter, trace.TracerProvider) {
	exporter := tracetest.NewInMemoryExporter()
	return exporter, sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
}

func spansByName(t *testing.T, exporter *tracetest.InMemoryExporter) map[string]tracetest.SpanStub {
	t.Helper()
	eventually(t, "the page's span ends", func() bool {
		for _, s := range exporter.GetSpans() {
			if s.Name == semconv.SpanPage {
				return true
			}
		}
		return false
	})
	all := make(map[string]tracetest.SpanStub)
	for _, s := range exporter.GetSpans() {
		all[s.Name] = s
	}
	return all
}

func TestAPageIsOneTraceInWhateverCaseItsHeaderCame(t *testing.T) {
	for _, header := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		t.Run(header, func(t *testing.T) {
			exporter, provider := newTraces()
			e := startNATS(t, EmbeddedOptions{})
			var inHandler trace.SpanContext
			serve(t, e, handlerFunc(func(ctx context.Context, _ string, body []byte) (Reply, error) {
				inHandler = trace.SpanContextFromContext(ctx)
				return Reply{Body: body}, nil
			}), func(c *Config) { c.TracerProvider = provider })
			msg := nats.NewMsg("kv.acme.v1.compress")
			msg.Header[header] = []string{"00-" + parentTrace + "-" + parentSpan + "-01"}
			msg.Data = []byte("page")
			reply, err := dial(t, e).RequestMsgWithContext(within(t), msg)
			if err != nil {
				t.Fatal(err)
			}
			spans := spansByName(t, exporter)
			page := spans[semconv.SpanPage]
			if got := page.SpanContext.TraceID().String(); got != parentTrace {
				t.Errorf("trace: got %s, want %s", got, parentTrace)
			}
			if got := page.Parent.SpanID().String(); got != parentSpan {
				t.Errorf("parent of the page's span: got %s, want %s", got, parentSpan)
			}
			if page.SpanKind != trace.SpanKindConsumer || page.Status.Code == codes.Error {
				t.Errorf("page's span: got kind %v, status %v, want consumer and no error", page.SpanKind, page.Status)
			}
			for _, child := range []string{semconv.SpanReceive, semconv.SpanReply} {
				if got := spans[child].Parent.SpanID(); got != page.SpanContext.SpanID() {
					t.Errorf("parent of %s: got %s, want the page's span", child, got)
				}
			}
			if received := spans[semconv.SpanReceive]; !received.StartTime.Equal(page.StartTime) || received.EndTime.Before(received.StartTime) {
				t.Errorf("receive: got %v to %v, want from the arrival at %v", received.StartTime, received.EndTime, page.StartTime)
			}
			if inHandler.SpanID() != page.SpanContext.SpanID() {
				t.Errorf("span in the handler: got %s, want the page's", inHandler.SpanID())
			}
			want := "00-" + parentTrace + "-" + page.SpanContext.SpanID().String() + "-01"
			if got := reply.Header["traceparent"]; len(got) != 1 || got[0] != want {
				t.Errorf("traceparent of the reply: got %v, want %s", got, want)
			}
			attrs := map[string]string{}
			for _, a := range page.Attributes {
				attrs[string(a.Key)] = a.Value.String()
			}
			for key, want := range map[string]string{
				"messaging.system": "nats", "messaging.destination.name": "kv.acme.v1.compress",
				"messaging.destination.template": subjectTemplate, "semproxy.tenant": "acme", "messaging.message.body.size": "4",
			} {
				if attrs[key] != want {
					t.Errorf("attribute %s: got %q, want %q", key, attrs[key], want)
				}
			}
		})
	}
}

func TestAFailedPagesSpanSaysSo(t *testing.T) {
	exporter, provider := newTraces()
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		return Reply{}, &Error{code: "page.overlap", text: "two tensors overlap"}
	}), func(c *Config) { c.TracerProvider = provider })
	call(t, dial(t, e), "kv.acme.v1.compress", nil)
	page := spansByName(t, exporter)[semconv.SpanPage]
	if page.Status.Code != codes.Error || page.Status.Description != "page.overlap" {
		t.Errorf("status: got %v, want an error page.overlap", page.Status)
	}
	for _, a := range page.Attributes {
		if a.Key == semconv.ErrorCode && a.Value.AsString() == "page.overlap" {
			return
		}
	}
	t.Errorf("attributes: got %v, want %s", page.Attributes, semconv.ErrorCode)
}
