package planebench

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/jobs"
	"github.com/semproxy/semproxy/transport/shm"
)

// Tenants of the bench: what the handler answers.
const (
	echoes = "echo" // the page itself
	acks   = "ack"  // a few bytes, as small as a reply can be
)

// env is a NATS server, a page plane on it and what raw paths need. Senders use TCP on loopback.
type env struct {
	dir    string
	nats   *transport.EmbeddedServer
	own    *nats.Conn
	plane  *transport.Server
	memory *shm.Server // nil where the system lacks it
	stop   context.CancelFunc
	ended  chan struct{}
}

const instance = "bench"

func newEnv(dir string, most int) (_ *env, err error) {
	quiet := slog.New(slog.DiscardHandler)
	e := &env{dir: dir, ended: make(chan struct{}), stop: func() {}}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.nats, err = transport.Embedded(transport.EmbeddedOptions{JobsDir: filepath.Join(dir, "jobs"), Logger: quiet}); err != nil {
		close(e.ended)
		return nil, err
	}
	if e.own, err = e.nats.Connect(); err != nil {
		close(e.ended)
		return nil, err
	}
	runner, err := jobs.New(jobs.Config{Conn: e.own, Logger: quiet, MaxBytes: 4 << 30, Tenants: func() []jobs.Tenant {
		return []jobs.Tenant{{Name: acks}}
	}})
	if err != nil {
		close(e.ended)
		return nil, err
	}
	cfg := transport.Config{
		Conn: e.own, Handler: handler{}, Limiter: unlimited{}, Instance: instance, Jobs: runner, InFlightBytes: 4 << 30,
		TracerProvider: noop.NewTracerProvider(), Logger: quiet,
	}
	if shm.Supported {
		e.memory, err = shm.Listen(shm.Config{Socket: e.socket(), Instance: instance, MaxPageBytes: int64(most), MaxRegionBytes: 8 << 30, Logger: quiet})
		if err != nil {
			close(e.ended)
			return nil, err
		}
		cfg.Memory = e.memory
	}
	if e.plane, err = transport.New(cfg); err == nil {
		err = e.plane.Start()
	}
	if err == nil && e.memory != nil {
		e.memory.Serve(e.plane.Accept)
	}
	if err != nil {
		close(e.ended)
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e.stop = stop
	go func() {
		defer close(e.ended)
		_ = runner.Run(ctx, e.plane)
	}()
	return e, nil
}

func (e *env) socket() string { return filepath.Join(e.dir, "shm") }

func (e *env) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if e.plane != nil {
		_ = e.plane.Drain(ctx)
	}
	e.stop()
	<-e.ended
	if e.memory != nil {
		_ = e.memory.Close()
	}
	if e.own != nil {
		e.own.Close()
	}
	if e.nats != nil {
		_ = e.nats.Shutdown(ctx)
	}
}

func (e *env) dial() (*nats.Conn, error) { return nats.Connect(e.nats.ClientURL()) }

func (e *env) client(tenant string, memory shm.Options) (*client.Client, error) {
	return client.Dial(e.nats.ClientURL(), transport.ConnectOptions{Logger: slog.New(slog.DiscardHandler)},
		client.Options{Tenant: tenant, SharedMemory: memory, TracerProvider: noop.NewTracerProvider()})
}

func randomPage(size int) []byte {
	page := make([]byte, size)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(page)
	return page
}

type handler struct{}

var acknowledgement = make([]byte, 64)

func (handler) Compress(_ context.Context, tenant string, page []byte) (transport.Reply, error) {
	if tenant == echoes {
		return transport.Reply{Body: page}, nil
	}
	return transport.Reply{Body: acknowledgement}, nil
}

func (handler) Get(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{}, errors.New("not measured")
}

func (handler) Stat(context.Context, string, []byte) (transport.Reply, error) {
	return transport.Reply{}, errors.New("not measured")
}

type unlimited struct{}

func (unlimited) Limits(string) (transport.Limits, bool) { return transport.Limits{}, true }
