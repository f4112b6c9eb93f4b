package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/shm"
)

// Options describe a [Client]. Tenant is required; a zero elsewhere takes the default.
type Options struct {
	Tenant      string        // whose pages these are
	InboxPrefix string        // where replies come; default: the connection's own. New refuses another than that
	Timeout     time.Duration // how long one attempt waits for its reply; default 30 s
	MaxAttempts int           // default 10
	Backoff     Backoff

	// SharedMemory, where it names a socket, lays pages in memory shared with the sidecar of this machine. A page that
	// cannot go that way goes over NATS.
	SharedMemory shm.Options

	TracerProvider trace.TracerProvider // default: the global one
}

// Backoff is the pause between attempts: First, then twice as long each time up to Max, each varied by half of it at
// random. A longer pause that the server asks for wins.
type Backoff struct {
	First time.Duration // default 50 ms
	Max   time.Duration // default 5 s
}

// Client sends the pages of one tenant. Safe for concurrent use; [Client.Close] ends it.
type Client struct {
	nc         *nats.Conn
	opts       Options
	link       *link
	memory     *memory // nil: every page goes over NATS
	owned      bool    // Dial made the connection
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
}

// Result is the reply to one request. The caller owns all of it.
type Result struct {
	Body     []byte
	Header   nats.Header
	Attempts int           // 1 where the first one succeeded
	Duration time.Duration // from the call to the reply, pauses included
	Shared   bool          // the page went through shared memory
}

// Dial connects to the NATS server at url and makes a client on that connection. An inbox prefix goes to the NATS server
// from opts.InboxPrefix (or conn.InboxPrefix); users of an embedded server with private inboxes pass
// transport.InboxPrefix(tenant). It returns at once, also when no server answers yet.
func Dial(url string, conn transport.ConnectOptions, opts Options) (*Client, error) {
	if opts.InboxPrefix != "" {
		conn.InboxPrefix = opts.InboxPrefix
	}
	if conn.Name == "" {
		conn.Name = "semproxy client"
	}
	nc, err := transport.Connect(url, conn)
	if err != nil {
		return nil, err
	}
	c, err := New(nc, opts)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c.owned = true
	return c, nil
}

// New makes a client on nc, which stays the caller's.
func New(nc *nats.Conn, opts Options) (*Client, error) {
	if nc == nil {
		return nil, errors.New("client: a connection is required")
	}
	if !transport.ValidTenant(opts.Tenant) {
		return nil, errors.New("client: Tenant must be 1 to 64 letters, digits, underscores or hyphens")
	}
	if opts.Timeout < 0 || opts.MaxAttempts < 0 || opts.Backoff.First < 0 || opts.Backoff.Max < 0 {
		return nil, errors.New("client: Timeout, MaxAttempts and Backoff must not be negative")
	}
	if has := strings.TrimSuffix(nc.Opts.InboxPrefix, "."); opts.InboxPrefix != "" && opts.InboxPrefix != has {
		return nil, fmt.Errorf("client: the connection's inbox prefix is %q, not %q: connect with nats.CustomInboxPrefix", has, opts.InboxPrefix)
	}
	if opts.Timeout == 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.MaxAttempts == 0 {
		opts.MaxAttempts = 10
	}
	if opts.Backoff.First == 0 {
		opts.Backoff.First = 50 * time.Millisecond
	}
	if opts.Backoff.Max == 0 {
		opts.Backoff.Max = 5 * time.Second
	}
	if opts.TracerProvider == nil {
		opts.TracerProvider = otel.GetTracerProvider()
	}
	c := &Client{
		nc: nc, opts: opts, link: watch(nc),
		tracer:     opts.TracerProvider.Tracer(scope),
		propagator: propagation.TraceContext{},
	}
	if opts.SharedMemory.Socket != "" {
		c.memory = &memory{client: c}
	}
	return c, nil
}

// Close ends the client, and the connection if [Dial] made it. Calls that are under way fail.
func (c *Client) Close() {
	if c.memory != nil {
		c.memory.close()
	}
	if c.owned {
		c.nc.Close()
	}
	c.link.close()
}

// Compress sends one page (a safetensors blob) and returns its cores.
func (c *Client) Compress(ctx context.Context, page []byte) (*Result, error) {
	return c.request(ctx, transport.OpCompress, nil, page)
}

// Get returns the object of that name.
func (c *Client) Get(ctx context.Context, object string) (*Result, error) {
	if object == "" {
		return nil, &Error{Code: "not_found", Message: "the name of an object must not be empty"}
	}
	return c.request(ctx, transport.OpGet, nil, []byte(object))
}

// Stat asks the sidecar for the tenant's state.
func (c *Client) Stat(ctx context.Context) (*Result, error) {
	return c.request(ctx, transport.OpStat, nil, nil)
}
