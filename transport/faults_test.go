package transport

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// told collects the kinds of refusals.
type told struct {
	mu    sync.Mutex
	kinds map[string]int
}

func (r *told) take(kind string, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds == nil {
		r.kinds = map[string]int{}
	}
	r.kinds[kind]++
}

func (r *told) count(kind string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kinds[kind]
}

// externalNATS is a NATS server whose options can be changed.
func externalNATS(t *testing.T, opt *server.Options) *server.Server {
	t.Helper()
	opt.Host, opt.NoSigs, opt.NoLog = "127.0.0.1", true, true
	if opt.Port == 0 {
		opt.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return s
}

// large answers with so many bytes.
type large int

func (n large) Compress(context.Context, string, []byte) (Reply, error) {
	return Reply{Body: make([]byte, n)}, nil
}
func (n large) Get(context.Context, string, []byte) (Reply, error)  { return Reply{}, nil }
func (n large) Stat(context.Context, string, []byte) (Reply, error) { return Reply{}, nil }

type noLimits struct{}

func (noLimits) Limits(string) (Limits, bool) { return Limits{}, true }

func serveOn(t *testing.T, url string, h Handler, refused func(string, error)) *Server {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	s, err := New(Config{Conn: nc, Handler: h, Limiter: noLimits{}, Refused: refused})
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Drain(ctx)
	})
	return s
}

// A server that was reloaded tells its new max_payload to new connections only: a reply that does not fit makes the sidecar ask.
func TestARaisedMaxPayloadIsTakenUp(t *testing.T) {
	opt := &server.Options{MaxPayload: 64 << 10}
	s := externalNATS(t, opt)
	var seen told
	serveOn(t, s.ClientURL(), large(200<<10), seen.take)
	request := func() *nats.Msg {
		nc, err := nats.Connect(s.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		msg, err := nc.Request("kv.acme.v1.compress", nil, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	if got := request().Header.Get(HeaderCode); got != CodeReplyTooLarge {
		t.Fatalf("a reply over max_payload: got %q, want %s", got, CodeReplyTooLarge)
	}
	// Asked a moment ago: a second server shows that a raised limit is found when it is looked for.
	opt2 := &server.Options{MaxPayload: 64 << 10}
	s2 := externalNATS(t, opt2)
	serveOn(t, s2.ClientURL(), large(200<<10), seen.take)
	raised := *opt2
	raised.Port, raised.MaxPayload = s2.Addr().(*net.TCPAddr).Port, 1<<20
	if err := s2.ReloadOptions(&raised); err != nil {
		t.Fatal(err)
	}
	s = s2
	msg := request()
	if len(msg.Data) != 200<<10 {
		t.Errorf("after max_payload was raised: got %d bytes, %q, want the reply", len(msg.Data), msg.Header.Get(HeaderCode))
	}
}

// A lower limit is taken up before a reply runs into it, which would end the connection; a higher one too.
func TestAChangedMaxPayloadIsTakenUp(t *testing.T) {
	opt := &server.Options{MaxPayload: 1 << 20}
	s := externalNATS(t, opt)
	plane := serveOn(t, s.ClientURL(), large(1), func(string, error) {})
	for _, most := range []int32{64 << 10, 8 << 20} {
		changed := *opt
		changed.Port, changed.MaxPayload = s.Addr().(*net.TCPAddr).Port, most
		if err := s.ReloadOptions(&changed); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		t.Cleanup(cancel)
		if err := plane.TakeUpPayload(ctx); err != nil {
			t.Fatal(err)
		}
		for plane.cfg.Conn.MaxPayload() != int64(most) || plane.Confirm(ctx) != nil {
			if ctx.Err() != nil {
				t.Fatalf("max_payload: got %d, want %d", plane.cfg.Conn.MaxPayload(), most)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// A user that may not subscribe hears no requests: that is said, told, and healed when it is given the permission.
func TestADeniedSubscriptionIsSaid(t *testing.T) {
	user := &server.User{Username: "sidecar", Password: "pw", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>", "kv.*.v1.stat"}}}}
	s := externalNATS(t, &server.Options{Users: []*server.User{user}})
	var seen told
	plane := serveOn(t, strings.Replace(s.ClientURL(), "nats://", "nats://sidecar:pw@", 1), large(1), seen.take)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for plane.Confirm(ctx) == nil && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	err := plane.Confirm(ctx)
	if err == nil || !strings.Contains(err.Error(), "kv.*.v1.compress") || strings.Contains(err.Error(), "v1.stat") {
		t.Errorf("got %v, want the subjects that are denied", err)
	}
	for seen.count(RefusedSubscribe) == 0 { // told just after it is known
		if ctx.Err() != nil {
			t.Fatalf("nobody was told of %s", RefusedSubscribe)
		}
		time.Sleep(time.Millisecond)
	}
	if err := plane.Resubscribe(); err != nil {
		t.Error(err)
	}
	for plane.Confirm(ctx) == nil && ctx.Err() == nil { // denied again
		time.Sleep(time.Millisecond)
	}
}

// Nobody answers at the start: that is logged at once, with address and cause, without the password.
func TestAwayAtTheStartIsSaid(t *testing.T) {
	var log lockedText
	var seen told
	nc, err := Connect("nats://user:secret@127.0.0.1:1", ConnectOptions{Logger: log.logger(), Refused: seen.take})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(log.String(), "nats_away") && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	text := log.String()
	if !strings.Contains(text, "127.0.0.1:1") || !strings.Contains(text, "refused") || strings.Contains(text, "secret") {
		t.Errorf("log: got %q, want address and cause and no password", text)
	}
	if strings.Count(text, "nats_away") != 1 || seen.count(RefusedAway) == 0 {
		t.Errorf("got %d lines, %v, want one line", strings.Count(text, "nats_away"), seen.kinds)
	}
}

// lockedText is a log that may be written and read at the same time.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedText) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }
