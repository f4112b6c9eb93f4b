package transport

import "context"

// Handler does the work of the page plane. It is called by several workers at once.
//
// The body belongs to the handler until the Release of its reply is called, or until it returns where there is none;
// nobody else writes to it, and it must not be kept longer: a page from shared memory lies in a buffer that is used again. ctx carries the
// span of the page, the deadline, and is cancelled when the server cannot wait any longer; a handler that ignores it
// holds a worker. An error with a method Code() string is shown to the tenant as it is; any other becomes "internal".
type Handler interface {
	Compress(ctx context.Context, tenant string, body []byte) (Reply, error)
	Get(ctx context.Context, tenant string, body []byte) (Reply, error)
	Stat(ctx context.Context, tenant string, body []byte) (Reply, error)
}

// Reply is a handler's answer. It is not touched after Release was called.
type Reply struct {
	Body   []byte            // sent as it is; nil is an empty body
	Spare  bool              // the headers alone are an answer, where NATS does not carry the body
	Header map[string]string // further headers; those of the protocol win over them
	// Release is called once, after the reply was handed to NATS (which copies it) or could not be; nil is allowed.
	Release func()
}

// Limits bound one tenant.
type Limits struct {
	// PagesPerSecond is the sustained rate of messages, with a burst of one second (at least one message). 0 or less: no limit.
	PagesPerSecond float64
	// InFlightBytes bounds the bytes of the request bodies that are queued or worked on. 0 or less: only the server's bound.
	InFlightBytes int64
}

// Limiter tells the limits of a tenant. It is asked for every message, from several goroutines, and must be fast:
// a policy that was reloaded applies to the next message.
type Limiter interface {
	// Limits returns what applies to the tenant, and whether the policy names it. Tenants that the policy does not
	// name are limited one by one like the others, and counted together in metrics.
	Limits(tenant string) (limits Limits, named bool)
}
