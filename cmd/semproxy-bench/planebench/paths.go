package planebench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/shm"
)

// Names of the paths. What follows "raw" is what the bare part does.
const (
	rawEcho    = "raw NATS echo"
	rawPublish = "raw JetStream publish"
)

// inlineMost leaves room for headers in the embedded server's longest message.
const inlineMost = transport.DefaultMaxPayload - 4096

var paths = append([]path{
	{name: rawEcho, most: inlineMost, open: openEcho},
	{name: "inline, echo", raw: rawEcho, most: inlineMost, open: openInline},
	{name: rawPublish, most: inlineMost, open: openPublish},
	{name: "job, submitted", raw: rawPublish, most: inlineMost, open: openSubmit},
	{name: "job, done", raw: rawPublish, most: inlineMost, open: openJob},
}, memoryPaths()...)

// openEcho is a bare responder, in process as the sidecar is, and a sender over TCP.
func openEcho(_ context.Context, e *env, size, _ int) (func(context.Context, int) error, func(), error) {
	responder, err := e.nats.Connect()
	if err != nil {
		return nil, nil, err
	}
	// Not a subject of the page plane.
	_, err = responder.Subscribe("kv.bare.v0.echo", func(m *nats.Msg) { _ = responder.Publish(m.Reply, m.Data) })
	if err == nil {
		err = responder.Flush()
	}
	var nc *nats.Conn
	if err == nil {
		nc, err = e.dial()
	}
	if err != nil {
		responder.Close()
		return nil, nil, err
	}
	page := randomPage(size)
	return func(ctx context.Context, _ int) error {
		m, err := nc.RequestWithContext(ctx, "kv.bare.v0.echo", page)
		return sameSize(m, err, size)
	}, func() { nc.Close(); responder.Close() }, nil
}

func sameSize(m *nats.Msg, err error, size int) error {
	if err == nil && len(m.Data) != size {
		err = fmt.Errorf("got %d bytes back, want %d: %s", len(m.Data), size, m.Header.Get(transport.HeaderCode))
	}
	return err
}

func openInline(_ context.Context, e *env, size, _ int) (func(context.Context, int) error, func(), error) {
	c, err := e.client(echoes, shm.Options{})
	if err != nil {
		return nil, nil, err
	}
	page := randomPage(size)
	return func(ctx context.Context, _ int) error {
		r, err := c.Compress(ctx, page)
		if err == nil && len(r.Body) != size {
			err = fmt.Errorf("got %d bytes back, want %d", len(r.Body), size)
		}
		return err
	}, c.Close, nil
}

// openPublish is a bare publisher to a stream in files, and nobody who reads it.
func openPublish(ctx context.Context, e *env, size, _ int) (func(context.Context, int) error, func(), error) {
	nc, err := e.nats.Connect()
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: "BARE", Subjects: []string{"semproxy.bare"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxBytes: 1 << 30,
		})
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	page := randomPage(size)
	return func(ctx context.Context, _ int) error {
			_, err := js.Publish(ctx, "semproxy.bare", page)
			return err
		}, func() {
			limited, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = js.DeleteStream(limited, "BARE")
			nc.Close()
		}, nil
}

var jobNumber atomic.Int64

// openSubmit hands jobs over; they are worked on meanwhile.
func openSubmit(_ context.Context, e *env, size, _ int) (func(context.Context, int) error, func(), error) {
	return openJobs(e, size, func(ctx context.Context, c *client.Client, id string, page []byte) error {
		_, err := c.Submit(ctx, id, page)
		return err
	})
}

// openJob hands a job over and waits for its outcome.
func openJob(_ context.Context, e *env, size, _ int) (func(context.Context, int) error, func(), error) {
	return openJobs(e, size, func(ctx context.Context, c *client.Client, id string, page []byte) error {
		if _, err := c.Submit(ctx, id, page); err != nil {
			return err
		}
		_, err := c.Wait(ctx, id)
		return err
	})
}

func openJobs(e *env, size int, send func(context.Context, *client.Client, string, []byte) error) (func(context.Context, int) error, func(), error) {
	c, err := e.client(acks, shm.Options{})
	if err != nil {
		return nil, nil, err
	}
	page := randomPage(size)
	return func(ctx context.Context, _ int) error {
		return send(ctx, c, fmt.Sprint("bench-", jobNumber.Add(1)), page)
	}, c.Close, nil
}

var errNotShared = errors.New("the page did not go through shared memory")
