package client

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

// patience bounds every wait of the tests.
const patience = 30 * time.Second

type handlerFunc func(ctx context.Context, tenant string, body []byte) (transport.Reply, error)

func (f handlerFunc) Compress(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	return f(ctx, tenant, body)
}
func (f handlerFunc) Get(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	return f(ctx, tenant, body)
}
func (f handlerFunc) Stat(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	return f(ctx, tenant, body)
}

func echo(_ context.Context, _ string, body []byte) (transport.Reply, error) {
	return transport.Reply{Body: body}, nil
}

// codedError is a handler's error with a code.
type codedError struct{ code, text string }

func (e codedError) Error() string { return e.text }
func (e codedError) Code() string  { return e.code }

type unlimited struct{}

func (unlimited) Limits(string) (transport.Limits, bool) { return transport.Limits{}, true }

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func startNATS(t testing.TB, opts transport.EmbeddedOptions) *transport.EmbeddedServer {
	t.Helper()
	opts.Logger = quietLog()
	e, err := transport.Embedded(opts)
	if err != nil {
		t.Fatalf("start embedded NATS: %v", err)
	}
	t.Cleanup(func() { _ = e.Shutdown(within(t)) })
	return e
}

// serve starts a sidecar's server on nc.
func serve(t testing.TB, nc *nats.Conn, h transport.Handler, change func(*transport.Config)) *transport.Server {
	t.Helper()
	cfg := transport.Config{Conn: nc, Handler: h, Limiter: unlimited{}, Logger: quietLog()}
	if change != nil {
		change(&cfg)
	}
	s, err := transport.New(cfg)
	if err != nil {
		t.Fatalf("new server: %v", err)
	}
	if err := s.Start(); err != nil {
		t.Fatalf("start server: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Drain(within(t)); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return s
}

func own(t testing.TB, e *transport.EmbeddedServer) *nats.Conn {
	t.Helper()
	nc, err := e.Connect()
	if err != nil {
		t.Fatalf("connect in process: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// newClient dials url as tenant acme with short pauses.
func newClient(t testing.TB, url string, change func(*Options)) *Client {
	t.Helper()
	opts := Options{Tenant: "acme", Timeout: patience, Backoff: Backoff{First: time.Millisecond, Max: 50 * time.Millisecond}}
	if change != nil {
		change(&opts)
	}
	c, err := Dial(url, transport.ConnectOptions{Logger: quietLog()}, opts)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantError(t *testing.T, err error, code string, retryable bool) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code || e.Retryable != retryable {
		t.Fatalf("got %v, want code %s, retryable %v", err, code, retryable)
	}
	return e
}
