package redis

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// BreakerOptions say when a server that does not answer is left alone, and for how long.
type BreakerOptions struct {
	Failures int           // in a row that open the breaker. 0: 5
	Pause    time.Duration // before the first trial; it doubles with each that fails. 0: 250 ms
	MaxPause time.Duration // 0: five seconds
}

func (o BreakerOptions) withDefaults() BreakerOptions {
	if o.Failures <= 0 {
		o.Failures = 5
	}
	if o.Pause <= 0 {
		o.Pause = 250 * time.Millisecond
	}
	if o.MaxPause <= 0 {
		o.MaxPause = 5 * time.Second
	}
	return o
}

var (
	errOpen = errors.New("circuit breaker is open")
	errSlow = errors.New("the operation took too long")
)

// counts are what all breakers of a store count together.
type counts struct {
	failures, refused atomic.Uint64
	open              atomic.Int64
}

// breaker keeps commands from one server after several have failed in a row: while it is open they fail at once, but
// for one trial after each pause. It is a hook of the server's client.
type breaker struct {
	opt    BreakerOptions
	server string
	counts *counts
	log    *slog.Logger

	mu     sync.Mutex
	failed int       // in a row
	until  time.Time // not zero: open, and no trial before
	pause  time.Duration
	trial  bool // one is under way
}

var _ goredis.Hook = (*breaker)(nil)

// allow reports whether a command may go to the server.
func (b *breaker) allow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.IsZero() {
		return true
	}
	if b.trial || time.Now().Before(b.until) {
		b.counts.refused.Add(1)
		return false
	}
	b.trial = true
	return true
}

// done takes in how a command went.
func (b *breaker) done(ctx context.Context, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trial = false
	if !failure(ctx, err) {
		if err == nil || answered(err) {
			b.close()
		}
		return
	}
	b.counts.failures.Add(1)
	if b.failed++; b.failed >= b.opt.Failures || !b.until.IsZero() {
		b.open(err)
	}
}

func (b *breaker) close() {
	b.failed, b.pause = 0, 0
	if !b.until.IsZero() {
		b.until = time.Time{}
		b.counts.open.Add(-1)
		b.log.Info("redis_back", "server", b.server)
	}
}

func (b *breaker) open(err error) {
	if b.until.IsZero() {
		b.counts.open.Add(1)
		b.log.Warn("redis_away", "server", b.server, "error", err)
	}
	b.pause = min(max(2*b.pause, b.opt.Pause), b.opt.MaxPause)
	b.until = time.Now().Add(b.pause/2 + rand.N(b.pause/2+1))
}

// failure reports whether err says that the server is not there. What the caller gave up says nothing.
func failure(ctx context.Context, err error) bool {
	var netErr net.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return false
	case errors.Is(err, context.DeadlineExceeded):
		return ctx.Err() == nil || errors.Is(context.Cause(ctx), errSlow)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, goredis.ErrPoolTimeout), errors.As(err, &netErr):
		return true
	}
	for _, state := range []string{"LOADING", "CLUSTERDOWN", "MASTERDOWN", "READONLY"} {
		if goredis.HasErrorPrefix(err, state) {
			return true
		}
	}
	return false
}

// answered reports whether err came from the server, so that it is there.
func answered(err error) bool {
	var e goredis.Error
	return errors.As(err, &e)
}

// handshake reports a command by which the library prepares a new connection. It comes through the hooks as well, in the
// middle of the command that needs the connection.
func handshake(cmd goredis.Cmder) bool {
	switch cmd.Name() {
	case "hello", "auth", "client", "select", "readonly":
		return true
	}
	return false
}

// DialHook is for goredis.Hook.
func (b *breaker) DialHook(next goredis.DialHook) goredis.DialHook { return next }

// ProcessHook is for goredis.Hook.
func (b *breaker) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if handshake(cmd) {
			return next(ctx, cmd)
		}
		if !b.allow() {
			cmd.SetErr(errOpen)
			return errOpen
		}
		err := next(ctx, cmd)
		b.done(ctx, err)
		return err
	}
}

// ProcessPipelineHook is for goredis.Hook.
func (b *breaker) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if len(cmds) > 0 && handshake(cmds[0]) {
			return next(ctx, cmds)
		}
		if !b.allow() {
			for _, cmd := range cmds {
				cmd.SetErr(errOpen)
			}
			return errOpen
		}
		err := next(ctx, cmds)
		b.done(ctx, err)
		return err
	}
}
