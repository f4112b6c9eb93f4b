//go:build !linux

package shm

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

// Supported says whether this system has the fast path.
const Supported = false

// Server is not available on this system.
type Server struct{}

// Listen returns [ErrUnsupported].
func Listen(Config) (*Server, error) { return nil, ErrUnsupported }

// Attach returns [ErrUnsupported].
func (*Server) Attach(string, string) error { return ErrUnsupported }

// Open returns [ErrUnsupported].
func (*Server) Open(string, string) (transport.Block, error) { return nil, ErrUnsupported }

// Serve does nothing.
func (*Server) Serve(Take) {}

// Close does nothing.
func (*Server) Close() error { return nil }

// Session is not available on this system.
type Session struct{}

// Dial returns [ErrUnsupported].
func Dial(context.Context, Options, func(ctx context.Context, instance, challenge string) error) (*Session, error) {
	return nil, ErrUnsupported
}

// Instance is empty.
func (*Session) Instance() string { return "" }

// Ended is closed.
func (*Session) Ended() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}

// Put returns [ErrUnsupported].
func (*Session) Put([]byte, int64) (*Lease, error) { return nil, ErrUnsupported }

// Exchange returns [ErrUnsupported].
func (*Session) Exchange(context.Context, *Lease, nats.Header) (*nats.Msg, error) {
	return nil, ErrUnsupported
}

// Close does nothing.
func (*Session) Close() {}

// Lease is not available on this system.
type Lease struct{}

// Descriptor is empty.
func (*Lease) Descriptor() string { return "" }

// Reply returns [ErrUnsupported].
func (*Lease) Reply(string) ([]byte, error) { return nil, ErrUnsupported }

// Release does nothing.
func (*Lease) Release() {}

// Abandon does nothing.
func (*Lease) Abandon() {}
