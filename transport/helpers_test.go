package transport

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// patience bounds every wait of the tests; none of them sleeps for it.
const patience = 20 * time.Second

type handlerFunc func(ctx context.Context, tenant string, body []byte) (Reply, error)

func (f handlerFunc) Compress(ctx context.Context, tenant string, body []byte) (Reply, error) {
	return f(ctx, tenant, body)
}
func (f handlerFunc) Get(ctx context.Context, tenant string, body []byte) (Reply, error) {
	return f(ctx, tenant, body)
}
func (f handlerFunc) Stat(ctx context.Context, tenant string, body []byte) (Reply, error) {
	return f(ctx, tenant, body)
}

func echo(_ context.Context, _ string, body []byte) (Reply, error) { return Reply{Body: body}, nil }

type limiterFunc func(tenant string) (Limits, bool)

func (f limiterFunc) Limits(tenant string) (Limits, bool) { return f(tenant) }

func unlimited(string) (Limits, bool) { return Limits{}, true }

// logBuffer collects a logger's output.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func startNATS(t testing.TB, opts EmbeddedOptions) *EmbeddedServer {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = quietLog()
	}
	e, err := Embedded(opts)
	if err != nil {
		t.Fatalf("start embedded NATS: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Shutdown(within(t)); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return e
}

// dial connects a test's client; with opts it may log in.
func dial(t testing.TB, e *EmbeddedServer, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(e.ClientURL(), opts...)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// serve starts a server on e; change adapts its configuration.
func serve(t testing.TB, e *EmbeddedServer, h Handler, change func(*Config)) *Server {
	t.Helper()
	nc, err := e.Connect()
	if err != nil {
		t.Fatalf("connect in process: %v", err)
	}
	t.Cleanup(nc.Close)
	cfg := Config{Conn: nc, Handler: h, Limiter: limiterFunc(unlimited), Logger: quietLog()}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
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

func call(t testing.TB, nc *nats.Conn, subject string, body []byte) *nats.Msg {
	t.Helper()
	msg, err := nc.RequestWithContext(within(t), subject, body)
	if err != nil {
		t.Fatalf("request %s: %v", subject, err)
	}
	return msg
}

// wantReply checks status and code of a reply, and that a pause is asked for exactly where a retry may help.
func wantReply(t testing.TB, msg *nats.Msg, code string) {
	t.Helper()
	status := StatusError
	if code == "" {
		status = StatusOK
	}
	if got := msg.Header.Get(HeaderStatus); got != status {
		t.Errorf("status: got %q (%v %q), want %q", got, msg.Header, msg.Data, status)
	}
	if got := msg.Header.Get(HeaderCode); got != code {
		t.Errorf("code: got %q (%q), want %q", got, msg.Data, code)
	}
	if got := msg.Header.Get(HeaderRetryAfter) != ""; got != Retryable(code) {
		t.Errorf("code %q: retry-after present %v, want %v", code, got, Retryable(code))
	}
}

// gate is a handler that reports each call and waits to be let go.
type gate struct {
	entered chan string // the tenant
	leave   chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan string, 1024), leave: make(chan struct{})} }

func (g *gate) handle(ctx context.Context, tenant string, body []byte) (Reply, error) {
	g.entered <- tenant
	select {
	case <-g.leave:
		return Reply{Body: body}, nil
	case <-ctx.Done():
		return Reply{}, ctx.Err()
	}
}

func (g *gate) await(t testing.TB) string {
	t.Helper()
	select {
	case tenant := <-g.entered:
		return tenant
	case <-time.After(patience):
		t.Fatal("the handler was not called")
		return ""
	}
}

// ask sends a request without waiting; the reply comes on the channel, nil if none did.
func ask(nc *nats.Conn, subject string, body []byte) <-chan *nats.Msg {
	out := make(chan *nats.Msg, 1)
	go func() {
		msg, err := nc.Request(subject, body, patience)
		if err != nil {
			msg = nil
		}
		out <- msg
	}()
	return out
}

func receive(t testing.TB, from <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	msg := <-from
	if msg == nil {
		t.Fatal("got no reply, want one")
	}
	return msg
}

// eventually polls a condition that no event announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen", what)
		}
		time.Sleep(time.Millisecond)
	}
}
