package client

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport"
)

func TestAPageIsSentAndItsReplyComesBack(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	serve(t, own(t, e), handlerFunc(func(_ context.Context, tenant string, body []byte) (transport.Reply, error) {
		return transport.Reply{Body: append([]byte(tenant+":"), body...), Header: map[string]string{"X-Object": "o1"}}, nil
	}), nil)
	c := newClient(t, e.ClientURL(), nil)
	for name, send := range map[string]func() (*Result, error){
		"acme:page": func() (*Result, error) { return c.Compress(within(t), []byte("page")) },
		"acme:o1":   func() (*Result, error) { return c.Get(within(t), "o1") },
		"acme:":     func() (*Result, error) { return c.Stat(within(t)) },
	} {
		got, err := send()
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Body) != name || got.Header.Get("X-Object") != "o1" || got.Attempts != 1 || got.Duration <= 0 {
			t.Errorf("got %q %v, %d attempts, %v; want %q at the first attempt", got.Body, got.Header, got.Attempts, got.Duration, name)
		}
	}
	_, err := c.Get(within(t), "")
	_ = wantError(t, err, "not_found", false)
}

func TestRetryableErrorsAreTriedAgainWithTheSameBytes(t *testing.T) {
	for _, code := range []string{"busy", "draining", "deadline", "limit.rate", "limit.bytes", "store.unavailable"} {
		t.Run(code, func(t *testing.T) {
			page := []byte("the same bytes each time")
			var calls atomic.Int32
			e := startNATS(t, transport.EmbeddedOptions{})
			serve(t, own(t, e), handlerFunc(func(_ context.Context, _ string, body []byte) (transport.Reply, error) {
				if !bytes.Equal(body, page) {
					t.Errorf("body: got %q, want %q", body, page)
				}
				if calls.Add(1) < 3 {
					return transport.Reply{}, codedError{code, "not now"}
				}
				return transport.Reply{Body: body}, nil
			}), nil)
			got, err := newClient(t, e.ClientURL(), nil).Compress(within(t), page)
			if err != nil || got.Attempts != 3 {
				t.Errorf("got %+v %v, want success at the third attempt", got, err)
			}
		})
	}
}

func TestFinalErrorsComeBackAtOnce(t *testing.T) {
	var calls atomic.Int32
	e := startNATS(t, transport.EmbeddedOptions{})
	serve(t, own(t, e), handlerFunc(func(context.Context, string, []byte) (transport.Reply, error) {
		calls.Add(1)
		return transport.Reply{}, codedError{"page.bad_shape", "k must have 4 dimensions"}
	}), nil)
	_, err := newClient(t, e.ClientURL(), nil).Compress(within(t), nil)
	if got := wantError(t, err, "page.bad_shape", false); got.Message != "k must have 4 dimensions" || got.Attempts != 1 || calls.Load() != 1 {
		t.Errorf("got %+v after %d calls, want the server's sentence after one", got, calls.Load())
	}
}

func TestTheAttemptsAreBounded(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	serve(t, own(t, e), handlerFunc(func(context.Context, string, []byte) (transport.Reply, error) {
		return transport.Reply{}, codedError{"busy", "not now"}
	}), nil)
	_, err := newClient(t, e.ClientURL(), func(o *Options) { o.MaxAttempts = 3 }).Compress(within(t), nil)
	if got := wantError(t, err, "busy", true); got.Attempts != 3 || !strings.Contains(got.Error(), "after 3 attempts") {
		t.Errorf("got %v, want three attempts", got)
	}
}

func TestTheCallersContextEndsTheWait(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	entered := make(chan struct{}, 1)
	serve(t, own(t, e), handlerFunc(func(ctx context.Context, _ string, body []byte) (transport.Reply, error) {
		if len(body) == 0 {
			return transport.Reply{}, codedError{"busy", "not now"}
		}
		entered <- struct{}{}
		<-ctx.Done()
		return transport.Reply{}, ctx.Err()
	}), func(c *transport.Config) { c.RequestTimeout = 2 * time.Second })
	c := newClient(t, e.ClientURL(), func(o *Options) { o.Backoff = Backoff{First: time.Hour, Max: time.Hour} })
	for name, body := range map[string][]byte{"between attempts": nil, "while waiting for a reply": []byte("x")} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			go func() {
				if len(body) > 0 {
					<-entered
				}
				cancel()
			}()
			if _, err := c.Compress(ctx, body); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
	}
}

func TestAPageTooLargeForNATSIsNotSent(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{MaxPayload: 4096})
	serve(t, own(t, e), handlerFunc(func(context.Context, string, []byte) (transport.Reply, error) {
		t.Error("the page reached the handler")
		return transport.Reply{}, nil
	}), nil)
	c := newClient(t, e.ClientURL(), func(o *Options) { o.TracerProvider = sdktrace.NewTracerProvider() })
	for _, size := range []int{4097, 4096} { // with the trace context in its headers the second is too large, too
		_, err := c.Compress(within(t), make([]byte, size))
		if got := wantError(t, err, "page.too_large", false); !strings.Contains(got.Message, "fewer layers") {
			t.Errorf("sentence: got %q, want a remedy", got.Message)
		}
	}
}

func TestItWaitsForASidecarThatIsNotThereYet(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	c := newClient(t, e.ClientURL(), func(o *Options) { o.MaxAttempts = 1 })
	_, err := c.Compress(within(t), nil)
	_ = wantError(t, err, CodeUnreachable, true)
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v, want it to wrap %v", err, nats.ErrNoResponders)
	}

	patient := newClient(t, e.ClientURL(), func(o *Options) { o.MaxAttempts = 1000 })
	done := make(chan error, 1)
	go func() { _, err := patient.Compress(within(t), nil); done <- err }()
	serve(t, own(t, e), handlerFunc(echo), nil)
	if err := <-done; err != nil {
		t.Errorf("got %v, want success once the sidecar is there", err)
	}
}

func TestAReplyThatDoesNotComeIsTriedAgain(t *testing.T) {
	var calls atomic.Int32
	e := startNATS(t, transport.EmbeddedOptions{})
	serve(t, own(t, e), handlerFunc(func(ctx context.Context, _ string, body []byte) (transport.Reply, error) {
		if calls.Add(1) == 1 {
			<-ctx.Done()
		}
		return transport.Reply{Body: body}, nil
	}), func(c *transport.Config) { c.RequestTimeout = time.Second })
	c := newClient(t, e.ClientURL(), func(o *Options) { o.Timeout = 50 * time.Millisecond })
	got, err := c.Compress(within(t), []byte("page"))
	if err != nil || string(got.Body) != "page" || got.Attempts < 2 {
		t.Errorf("got %+v %v, want the reply at a later attempt", got, err)
	}
	c = newClient(t, e.ClientURL(), func(o *Options) { o.Timeout, o.MaxAttempts = time.Nanosecond, 2 })
	_, err = c.Compress(within(t), nil)
	var e2 *Error
	if !errors.As(err, &e2) || !e2.Retryable || e2.Attempts != 2 {
		t.Errorf("got %v, want a retryable error after two attempts", err)
	}
}

func TestATenantThatNATSRefusesIsAFinalError(t *testing.T) {
	users := []transport.User{{Tenant: "acme", Name: "a", Password: "p"}, {Tenant: "globex", Name: "g", Password: "p"}}
	e := startNATS(t, transport.EmbeddedOptions{Users: users})
	serve(t, own(t, e), handlerFunc(echo), func(c *transport.Config) { c.PrivateInboxes = e.PrivateInboxes() })
	nc, err := nats.Connect(e.ClientURL(), nats.UserInfo("g", "p"), nats.CustomInboxPrefix(transport.InboxPrefix("globex")),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for tenant, refused := range map[string]bool{"acme": true, "globex": false} {
		c, err := New(nc, Options{Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Compress(within(t), []byte("page"))
		if refused {
			_ = wantError(t, err, "policy.denied", false)
		} else if err != nil {
			t.Errorf("tenant %s: got %v, want success", tenant, err)
		}
		c.Close()
	}
}

func TestOneSpanPerCallCarriesTheTraceToTheSidecar(t *testing.T) {
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	var calls atomic.Int32
	e := startNATS(t, transport.EmbeddedOptions{})
	s := serve(t, own(t, e), handlerFunc(func(context.Context, string, []byte) (transport.Reply, error) {
		switch calls.Add(1) {
		case 1:
			return transport.Reply{}, codedError{"busy", "not now"}
		case 2:
			return transport.Reply{}, codedError{"gone", "deleted"}
		}
		return transport.Reply{}, nil
	}), func(c *transport.Config) { c.TracerProvider = provider })
	c := newClient(t, e.ClientURL(), func(o *Options) { o.TracerProvider = provider })
	_, err := c.Compress(within(t), []byte("page"))
	_ = wantError(t, err, "gone", false)
	if err := s.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	var send tracetest.SpanStub
	pages := 0
	for _, span := range exporter.GetSpans() {
		if span.Name == semconv.SpanSend {
			send = span
		}
	}
	for _, span := range exporter.GetSpans() {
		if span.Name == semconv.SpanPage && span.Parent.SpanID() == send.SpanContext.SpanID() {
			pages++
		}
	}
	if pages != 2 || len(send.Events) != 1 || send.SpanKind != trace.SpanKindProducer || send.Status.Code != codes.Error {
		t.Errorf("got %d pages below %+v; want 2 below one producer span with one retry and an error status", pages, send)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	nc, err := nats.Connect(e.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for name, opts := range map[string]Options{
		"no tenant": {}, "tenant with a dot": {Tenant: "a.b"}, "negative": {Tenant: "a", MaxAttempts: -1},
		"another inbox than the connection's": {Tenant: "a", InboxPrefix: "_INBOX.a"},
	} {
		if c, err := New(nc, opts); err == nil {
			c.Close()
			t.Errorf("%s: got nil, want an error", name)
		}
	}
	if _, err := New(nil, Options{Tenant: "a"}); err == nil {
		t.Error("no connection: got nil, want an error")
	}
	if _, err := Dial("nats://u:hunter2@host:x", transport.ConnectOptions{}, Options{Tenant: "a"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("malformed address: got %v, want an error without the password", err)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	entered := make(chan struct{}, 1)
	serve(t, own(t, e), handlerFunc(func(ctx context.Context, _ string, _ []byte) (transport.Reply, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return transport.Reply{}, ctx.Err()
	}), func(c *transport.Config) { c.RequestTimeout = time.Second })
	c := newClient(t, e.ClientURL(), nil)
	done := make(chan error, 1)
	go func() { _, err := c.Compress(within(t), nil); done <- err }()
	<-entered
	c.Close()
	_ = wantError(t, <-done, CodeUnreachable, false)
}

func TestPausesGrowVaryAndHonourTheServer(t *testing.T) {
	b := Backoff{First: 10 * time.Millisecond, Max: 100 * time.Millisecond}
	for n, want := range map[int]time.Duration{1: 10, 2: 20, 3: 40, 5: 100, 40: 100, 1000: 100} {
		want *= time.Millisecond
		for range 50 {
			if got := b.pause(n, 0); got < want || got > want*3/2 {
				t.Fatalf("pause(%d): got %v, want %v to half as much again", n, got, want)
			}
		}
	}
	if got := b.pause(1, time.Second); got < time.Second || got > 1500*time.Millisecond {
		t.Errorf("asked for a second: got %v, want at least that", got)
	}
}

func TestAReplyOfSomebodyElse(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	nc := own(t, e)
	if _, err := nc.Subscribe("kv.acme.v1.stat", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	_, err := newClient(t, e.ClientURL(), nil).Stat(within(t))
	_ = wantError(t, err, "internal", false)
}
