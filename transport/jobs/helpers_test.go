package jobs

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// handler answers pages; Get and Stat are not used.
type handler func(ctx context.Context, tenant string, page []byte) (transport.Reply, error)

func (h handler) Compress(ctx context.Context, tenant string, page []byte) (transport.Reply, error) {
	return h(ctx, tenant, page)
}
func (handler) Get(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{}, nil
}
func (handler) Stat(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{}, nil
}

type unlimited struct{}

func (unlimited) Limits(string) (transport.Limits, bool) { return transport.Limits{}, true }

// ledger remembers the pages that it was given.
type ledger struct {
	mu   sync.Mutex
	seen map[string]int // tenant and page
}

func (l *ledger) handle(_ context.Context, tenant string, page []byte) (transport.Reply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = make(map[string]int)
	}
	l.seen[tenant+" "+string(page)]++
	return transport.Reply{Header: map[string]string{"Semproxy-Object": "of " + string(page[:min(len(page), 16)])}}, nil
}

func (l *ledger) count(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[key]
}

// fixture is an embedded NATS server with JetStream.
type fixture struct {
	*transport.EmbeddedServer
	t testing.TB
}

func start(t testing.TB, users ...transport.User) *fixture {
	t.Helper()
	e, err := transport.Embedded(transport.EmbeddedOptions{JobsDir: t.TempDir(), Users: users, Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Shutdown(within(t)) })
	return &fixture{e, t}
}

// own is the sidecar's connection.
func (f *fixture) own() *nats.Conn {
	f.t.Helper()
	nc, err := f.Connect()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	return nc
}

func (f *fixture) dial(opts ...nats.Option) *nats.Conn {
	f.t.Helper()
	nc, err := nats.Connect(f.ClientURL(), opts...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(nc.Close)
	return nc
}

func (f *fixture) admin() *Admin {
	f.t.Helper()
	o, err := NewAdmin(f.own())
	if err != nil {
		f.t.Fatal(err)
	}
	return o
}

// sidecar is a runner and the server whose queue it uses.
type sidecar struct {
	*Runner
	server *transport.Server
	nc     *nats.Conn
	stop   func()
}

type setting struct {
	jobs  Config
	plane transport.Config
	queue func(Queue) Queue
}

func (f *fixture) sidecar(h handler, change func(*setting)) *sidecar {
	f.t.Helper()
	s := &sidecar{nc: f.own()}
	set := setting{queue: func(q Queue) Queue { return q }}
	set.jobs = Config{Conn: s.nc, Logger: quietLog(), AckWait: 2 * time.Second, Refresh: 20 * time.Millisecond, Tenants: func() []Tenant {
		return []Tenant{{Name: "acme"}, {Name: "globex"}}
	}}
	set.plane = transport.Config{Conn: s.nc, Handler: h, Limiter: unlimited{}, Logger: quietLog(), PrivateInboxes: f.PrivateInboxes()}
	if change != nil {
		change(&set)
	}
	var err error
	if s.Runner, err = New(set.jobs); err != nil {
		f.t.Fatal(err)
	}
	set.plane.Jobs = s.Runner
	if s.server, err = transport.New(set.plane); err != nil {
		f.t.Fatal(err)
	}
	if err := s.server.Start(); err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Run(ctx, set.queue(s.server))
	}()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			_ = s.server.Drain(within(f.t))
			cancel()
			<-ended
		})
	}
	f.t.Cleanup(s.stop)
	eventually(f.t, "the streams are made", func() bool { return s.Ready() == nil && s.following() })
	return s
}

// following reports that some tenant's jobs are pulled, and Ready therefore means something.
func (r *Runner) following() bool {
	for _, t := range r.cfg.Tenants() {
		stream, err := r.js.Stream(context.Background(), waiting+t.Name)
		if err != nil {
			return false
		}
		if _, err := stream.Consumer(context.Background(), durable); err != nil {
			return false
		}
	}
	return true
}

// submit sends a page as a job.
func submit(t testing.TB, nc *nats.Conn, tenant, id, page string) *nats.Msg {
	t.Helper()
	msg := &nats.Msg{Subject: "kv." + tenant + ".v1.job", Data: []byte(page), Header: nats.Header{}}
	if id != "" {
		msg.Header.Set(jetstream.MsgIDHeader, id)
	}
	reply, err := nc.RequestMsg(msg, patience)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// outcome waits for what became of a job.
func outcome(t testing.TB, nc *nats.Conn, tenant, id string) (reply *nats.Msg) {
	t.Helper()
	eventually(t, "job "+id+" has an outcome", func() bool {
		var err error
		if reply, err = nc.Request("kv."+tenant+".v1.result", []byte(id), patience); err != nil {
			t.Fatal(err)
		}
		return reply.Header.Get(transport.HeaderCode) != CodePending
	})
	return reply
}

func wantCode(t testing.TB, reply *nats.Msg, code string) {
	t.Helper()
	if got := reply.Header.Get(transport.HeaderCode); got != code {
		t.Errorf("code: got %q (%s), want %q", got, reply.Data, code)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen", what)
		}
	}
}

func (f *fixture) state(o *Admin, tenant string) State {
	f.t.Helper()
	all, err := o.States(within(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, s := range all {
		if s.Tenant == tenant {
			return s
		}
	}
	return State{}
}
