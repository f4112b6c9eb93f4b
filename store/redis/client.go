package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/semproxy/semproxy/store"
)

// quiet keeps the library from writing to standard error: what fails is in the errors and in the breaker's log.
var quiet = sync.OnceFunc(func() { goredis.SetLogger(discard{}) })

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}

// connect makes the client; it connects when it is first used.
func connect(opt *Options, c *counts) goredis.UniversalClient {
	quiet()
	o := &goredis.UniversalOptions{
		Addrs: opt.Addrs, MasterName: opt.Master, IsClusterMode: opt.Cluster, ClientName: "semproxy", DisableIdentity: true,
		DialTimeout: opt.Timeout / 2, ReadTimeout: opt.Timeout, WriteTimeout: opt.Timeout, PoolTimeout: opt.Timeout,
		DialerRetries: 1, MaxRetries: 1, MinRetryBackoff: 5 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond,
		MaxRedirects: 12, PoolSize: opt.PoolSize, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer:                   dialer(opt),
	}
	if opt.Credentials != nil {
		o.CredentialsProviderContext = func(context.Context) (string, string, error) { return opt.Credentials() }
	}
	client := goredis.NewUniversalClient(o)
	watch := func(node *goredis.Client, server string) {
		node.AddHook(&breaker{opt: opt.Breaker, server: server, counts: c, log: opt.Logger, refused: opt.Refused})
	}
	switch x := client.(type) {
	case *goredis.ClusterClient:
		x.OnNewNode(func(node *goredis.Client) { watch(node, node.Options().Addr) })
	case *goredis.Client:
		watch(x, x.Options().Addr)
	}
	return client
}

// dialer connects with the TLS configuration of the moment, so that a new certificate needs no restart.
func dialer(opt *Options) func(context.Context, string, string) (net.Conn, error) {
	plain := net.Dialer{Timeout: opt.Timeout / 2, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if opt.TLS == nil {
			return plain.DialContext(ctx, network, addr)
		}
		cfg, err := opt.TLS()
		if err != nil {
			return nil, err
		}
		if cfg.ServerName == "" {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		return (&tls.Dialer{NetDialer: &plain, Config: cfg}).DialContext(ctx, network, addr)
	}
}

// deadline bounds an operation that moves that many bytes.
func (s *Store) deadline(ctx context.Context, bytes int64) (context.Context, context.CancelFunc) {
	const slowest = 32 << 20 // bytes per second
	limit := s.opt.Timeout + time.Duration(bytes)*time.Second/slowest
	return context.WithTimeoutCause(ctx, limit, errSlow)
}

// unavailable wraps a failure of Redis as store.ErrUnavailable. Addresses are dropped: the error may travel to a
// client. What the caller gave up is its own error.
func unavailable(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	return fmt.Errorf("%s: %w: %w", op, store.ErrUnavailable, cause(err))
}

var errNoAnswer = errors.New("no answer from redis")

// cause is err without anything that names a place.
func cause(err error) error {
	var errno syscall.Errno
	var netErr net.Error
	switch {
	case errors.Is(err, errOpen), errors.Is(err, errTileLost), errors.Is(err, errConflict):
		return err
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return errSlow
	}
	if kind := Refusal(err); kind != "" {
		return errors.New("redis answers " + kind)
	}
	return errNoAnswer
}
