package redis

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
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
// for one trial after each pause. It is a hook of the server's client. What reads and what writes are told apart: a server that
// is full, read-only or that lets this user write nothing is still read from.
type breaker struct {
	opt     BreakerOptions
	server  string
	counts  *counts
	log     *slog.Logger
	refused func(kind string, err error)

	mu     sync.Mutex
	reads  circuit
	writes circuit
}

// circuit is the state of one kind of commands. It is guarded by its breaker's lock.
type circuit struct {
	failed int       // in a row
	until  time.Time // not zero: open, and no trial before
	pause  time.Duration
	trial  bool // one is under way

	refused bool // its last failure was a refusal, so that the server is there: what goes well in the other circuit says nothing of this one
}

func (c *circuit) isOpen() bool { return !c.until.IsZero() }

var _ goredis.Hook = (*breaker)(nil)

// allow reports whether commands of that kind may go to the server.
func (b *breaker) allow(c *circuit) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.isOpen() {
		return true
	}
	if c.trial || time.Now().Before(c.until) {
		b.counts.refused.Add(1)
		return false
	}
	c.trial = true
	return true
}

// done takes in how a command went.
func (b *breaker) done(ctx context.Context, c *circuit, err error) {
	kind := Refusal(err)
	if kind != "" {
		b.refused(kind, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.trial = false
	other := &b.reads
	if c == other {
		other = &b.writes
	}
	if kind == "" && !failure(ctx, err) {
		if err == nil || answered(err) {
			b.close(c)
			if !other.refused { // the server is there, for both
				b.close(other)
			}
		}
		return
	}
	b.counts.failures.Add(1)
	b.fail(c, err, kind != "")
	if kind == "" {
		b.fail(other, err, false)
	}
}

// fail counts a failure of a circuit, which opens it or keeps it open.
func (b *breaker) fail(c *circuit, err error, refused bool) {
	c.refused = refused
	if c.failed++; c.failed >= b.opt.Failures || c.isOpen() {
		b.open(c, err)
	}
}

func (b *breaker) close(c *circuit) {
	c.failed, c.pause, c.refused = 0, 0, false
	if !c.isOpen() {
		return
	}
	c.until = time.Time{}
	if !b.reads.isOpen() && !b.writes.isOpen() {
		b.counts.open.Add(-1)
		b.log.Info("redis_back", "server", b.server)
	}
}

func (b *breaker) open(c *circuit, err error) {
	if !b.reads.isOpen() && !b.writes.isOpen() {
		b.counts.open.Add(1)
		b.log.Warn("redis_away", "server", b.server, "writes_only", c == &b.writes && answered(err), "error", err)
	}
	c.pause = min(max(2*c.pause, b.opt.Pause), b.opt.MaxPause)
	c.until = time.Now().Add(c.pause/2 + rand.N(c.pause/2+1))
}

// refusals are the kinds of answers by which a server that is there refuses, as they stand in its errors: at their
// beginning, or within what a script reports.
var refusals = []string{
	"OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "NOREPLICAS",
}

// Refusal is the kind of a refusal, such as OOM; empty where err is none.
func Refusal(err error) string {
	if err == nil || errors.Is(err, goredis.Nil) || !answered(err) {
		return ""
	}
	for _, kind := range refusals {
		if goredis.HasErrorPrefix(err, kind) {
			return kind
		}
	}
	text := err.Error()
	for _, kind := range refusals {
		if strings.Contains(text, " "+kind+" ") || strings.Contains(text, "-"+kind+" ") {
			return kind
		}
	}
	switch {
	case strings.Contains(text, "user executing the script"), strings.Contains(text, "ACL failure in script"): // Redis 7.0; later ones
		return "NOPERM"
	case strings.Contains(text, "unknown command") && strings.Contains(strings.ToLower(text), "eval"):
		return "NOSCRIPTING" // renamed away or switched off by the provider
	case strings.Contains(text, "max number of clients reached"):
		return "MAXCLIENTS"
	}
	return ""
}

// of is the circuit that a command belongs to.
func (b *breaker) of(cmd goredis.Cmder) *circuit {
	switch cmd.Name() {
	case "get", "hmget", "hget", "hgetall", "hlen", "hexists", "hrandfield", "exists", "pttl", "ping", "scan", "time", "info", "cluster":
		return &b.reads
	}
	return &b.writes
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
		c := b.of(cmd)
		if !b.allow(c) {
			cmd.SetErr(errOpen)
			return errOpen
		}
		err := next(ctx, cmd)
		b.done(ctx, c, err)
		return err
	}
}

// ProcessPipelineHook is for goredis.Hook.
func (b *breaker) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if len(cmds) > 0 && handshake(cmds[0]) {
			return next(ctx, cmds)
		}
		c := &b.reads
		for _, cmd := range cmds {
			if b.of(cmd) == &b.writes {
				c = &b.writes
			}
		}
		if !b.allow(c) {
			for _, cmd := range cmds {
				cmd.SetErr(errOpen)
			}
			return errOpen
		}
		err := next(ctx, cmds)
		said := err
		if goredis.HasErrorPrefix(err, aborted) { // why, the command says that was refused
			said = firstOf(cmds, err)
		}
		b.done(ctx, c, said)
		return err
	}
}
