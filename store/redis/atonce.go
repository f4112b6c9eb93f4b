package redis

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// What putScript says beside what reserve says.
const (
	notNew  = 2
	notTime = 3
	notSent = 4
)

// atOnce puts an object that is new in one round trip: the blob, its place in the account and its manifest. done is false where
// that cannot be: the object is there, or the keys of account and object are not in reach of one script. Where the blob has arrived
// nevertheless, p.sent says so.
func (p *putting) atOnce(ctx context.Context) (done bool, err error) {
	terms := func() ([]string, []any) {
		p.m.seq = p.clock.next()
		return p.placement()
	}
	answer, err := p.send(ctx, putScript, terms)
	if goredis.HasErrorPrefix(err, "NOSCRIPT") {
		keys, args := p.placement()
		answer = putScript.Run(ctx, p.client, keys, args...)
		err = answer.Err()
	}
	if goredis.HasErrorPrefix(err, "CROSSSLOT") {
		p.apart.Store(true)
		return false, nil
	}
	var r reservation
	var state int64
	if err == nil {
		r, state, err = parseReservation(answer)
	}
	switch {
	case err != nil && (answered(err) || errors.Is(err, errOpen)): // nothing was done; what was sent goes by itself
		return false, err
	case err != nil && p.giveUp(ctx):
		return true, nil
	case err != nil:
		return false, err
	case state == notTime:
		p.clock.set(r.seq)
	}
	if state != 0 {
		p.sent = state != notSent
		return false, nil
	}
	p.evict(ctx, &p.key, r.doomed)
	return true, nil
}

// placement is the keys and arguments of putScript.
func (p *putting) placement() ([]string, []any) {
	keys := append(p.keys.account(tenantName(p.key.Tenant)), manifestKey(p.object), p.staged())
	life := max(0, p.opt.TTL.Milliseconds())
	return append(keys, tileKeys(p.object, &p.m)...),
		[]any{p.key.Object, p.m.size, life, p.opt.Quota, p.m.seq, p.m.version, life + tileGrace.Milliseconds()}
}

// firstOf is the error of the first command of a pipeline that failed. A transaction that was not carried out says only that it
// was not; the command that was refused says why.
func firstOf(answers []goredis.Cmder, err error) error {
	for _, a := range answers {
		if e := a.Err(); e != nil && !errors.Is(e, goredis.Nil) && !goredis.HasErrorPrefix(e, aborted) {
			return e
		}
	}
	return err
}

const aborted = "EXECABORT"

// clock gives places in accounts that follow the server's time, in microseconds. The server refuses those that are too far from it.
type clock struct{ ahead, last atomic.Int64 }

// next is later than all before, unless the clock was set in between.
func (c *clock) next() int64 {
	for {
		last := c.last.Load()
		now := max(time.Now().UnixMicro()+c.ahead.Load(), last+1)
		if c.last.CompareAndSwap(last, now) {
			return now
		}
	}
}

// set takes over the server's time.
func (c *clock) set(micros int64) {
	c.ahead.Store(micros - time.Now().UnixMicro())
	c.last.Store(0)
}
