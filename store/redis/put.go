package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
)

var (
	errTileLost = errors.New("a tile was lost before it was committed")
	errConflict = errors.New("the object changes all the time")
)

const (
	maxTiles = 4096
	// tileGrace is how much longer than its manifest a tile lives, so that a reader who has the manifest finds it.
	tileGrace = 30 * time.Second
	attempts  = 16 // of an operation that other writers got in the way of
)

// Put stores the blob under key and returns once it is committed: from then on every reader of every sidecar sees it.
// How long it outlives Redis is a matter of Redis's persistence. The caller keeps the blob. Over the quota the tenant's
// oldest objects go; a blob over it by itself is store.ErrTooLarge. Content that is already there is not written again,
// and a repeat never shortens its life; other content under the same key replaces it. On an error nothing of the blob
// is visible, and what was written of it goes by itself.
func (s *Store) Put(ctx context.Context, key store.Key, blob []byte, opt store.PutOptions) error {
	if err := s.enter(ctx, key, "put"); err != nil {
		return err
	}
	defer s.gate.RUnlock()
	size := int64(len(blob))
	if (opt.Quota > 0 && size > opt.Quota) || size > int64(s.opt.TileBytes)*maxTiles {
		return fmt.Errorf("put object of %d bytes: %w", size, store.ErrTooLarge)
	}
	ctx, cancel := s.deadline(ctx, size)
	defer cancel()
	p := &putting{Store: s, key: key, object: s.keys.object(key), blob: blob, opt: opt}
	if err := p.run(ctx); err != nil {
		return unavailable(ctx, "put object", err)
	}
	return nil
}

// putting is one Put under way.
type putting struct {
	*Store
	key    store.Key
	object string
	blob   []byte
	opt    store.PutOptions

	m    manifest
	sent bool      // the blob, under the names that the manifest has now
	old  *manifest // what is replaced; nil: nothing known
}

// run does it in one round trip, where it can.
func (p *putting) run(ctx context.Context) error {
	now := p.now()
	p.m = manifest{version: token(), size: int64(len(p.blob)), tile: int64(p.Store.opt.TileBytes), kind: p.Store.opt.Sum, created: now.UnixMilli()}
	if p.m.size > 0 && p.m.size <= p.m.tile {
		p.m.tile = 0
	}
	if p.opt.TTL > 0 {
		p.m.expires = max(0, now.Add(p.opt.TTL).UnixMilli()) // a sum past the end of time is never
	}
	if !p.apart.Load() {
		if done, err := p.atOnce(ctx); done || err != nil {
			return err
		}
	}
	r, err := p.reserve(ctx, &p.key, p.m.size, p.opt, false, "")
	if err != nil {
		return err
	}
	if r.known {
		done, err := p.known(ctx)
		if err != nil || done {
			if p.sent {
				p.unlink(ctx)
			}
			p.evict(ctx, &p.key, r.doomed)
			return err
		}
		if r, err = p.reserve(ctx, &p.key, p.m.size, p.opt, true, ""); err != nil {
			return err
		}
	}
	p.m.seq = r.seq
	if err := p.write(ctx); err != nil && !p.giveUp(ctx) {
		return err
	}
	p.evict(ctx, &p.key, r.doomed)
	return nil
}

// known looks at the object that the account says is there; done is true when it makes writing needless.
func (p *putting) known(ctx context.Context) (done bool, err error) {
	have, err := p.manifest(ctx, p.object)
	if missing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p.old = have
	if !have.holds(p.blob) {
		return false, nil
	}
	longer := have.expires != 0 && (p.m.expires == 0 || p.m.expires > have.expires && p.m.expires-have.expires >= p.opt.TTL.Milliseconds()/10)
	if longer {
		return false, nil
	}
	return p.complete(ctx, have)
}

// complete reports whether all tiles of the manifest are there.
func (p *putting) complete(ctx context.Context, m *manifest) (bool, error) {
	if m.tiles() == 0 {
		return true, nil
	}
	n, err := p.client.Exists(ctx, tileKeys(p.object, m)...).Result()
	return int(n) == m.tiles(), err
}

// write sends what has not been sent, and commits.
func (p *putting) write(ctx context.Context) error {
	if p.sent || p.m.size == 0 {
		return p.commit(ctx)
	}
	answer, err := p.send(ctx, commitScript, p.commitment)
	if err == nil {
		if done, err := answer.Int(); err == nil && done == 1 {
			return nil
		}
	} else if !goredis.HasErrorPrefix(err, "NOSCRIPT") {
		return err
	}
	return p.commit(ctx) // the script is new to this server, or something is there
}

// sendTile writes a tile unless it is there: a command that the network held back, and that was sent again meanwhile,
// must not shorten the life of what is committed by now.
func (p *putting) sendTile(ctx context.Context, to goredis.Cmdable, i int) {
	from, end := p.m.span(i)
	to.SetNX(ctx, tileKey(p.object, p.m.version, i), p.blob[from:end], p.Store.opt.Staging)
}

// send sends the blob and then a script that works on it, and returns the script's answer. The last of it goes with the script, in
// one round trip: a blob of one piece in the hash that becomes the manifest. The error is that of the first command that failed.
func (p *putting) send(ctx context.Context, script *goredis.Script, terms func() (keys []string, args []any)) (*goredis.Cmd, error) {
	last, err := p.sendAhead(ctx)
	if err != nil {
		return nil, err
	}
	var answer *goredis.Cmd
	// A transaction: the hash gets its expiry by a command of its own, and might live for ever without it.
	answers, err := p.client.TxPipelined(ctx, func(pipe goredis.Pipeliner) error {
		for i := last; i < p.m.tiles(); i++ {
			p.sendTile(ctx, pipe, i)
		}
		keys, args := terms()
		if script == putScript || p.m.inline() {
			fields := p.m.values(p.object)
			if p.m.inline() {
				fields = append(fields, blobField, p.blob)
			}
			pipe.HSet(ctx, p.staged(), fields...)
			pipe.PExpire(ctx, p.staged(), p.Store.opt.Staging)
		}
		answer = script.EvalSha(ctx, pipe, keys, args...)
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) { // nil: a tile is there
		return answer, firstOf(answers, err)
	}
	return answer, answer.Err()
}

// sendAhead sends all tiles but the last trip's, and makes all sums. It returns the first tile that is left.
func (p *putting) sendAhead(ctx context.Context) (last int, err error) {
	n, per := p.m.kind.bytes(), p.m.perTrip()
	p.m.sums = make([]byte, n*p.m.parts())
	sum := func(i int) {
		from, to := p.m.span(i)
		p.m.kind.of(p.m.sums[n*i:n*(i+1)], p.blob[from:to])
	}
	trips := max(0, p.m.parts()-1) / per
	last = trips * per
	err = parallel(ctx, trips, p.Store.opt.Parallel, func(ctx context.Context, trip int) error {
		_, err := p.client.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for i := trip * per; i < (trip+1)*per; i++ {
				sum(i)
				p.sendTile(ctx, pipe, i)
			}
			return nil
		})
		if errors.Is(err, goredis.Nil) { // of a tile that is there
			return nil
		}
		return err
	})
	for i := last; i < p.m.parts(); i++ {
		sum(i)
	}
	return last, err
}

// staged is the hash that becomes the manifest.
func (p *putting) staged() string { return p.object + ":" + p.m.version + ":m" }

// commitment is the keys and arguments of the commit.
func (p *putting) commitment() (keys []string, args []any) {
	life, tileLife := time.Duration(0), time.Duration(0)
	if p.m.expires != 0 {
		life = p.opt.TTL
		tileLife = life + tileGrace
	}
	tiles := p.m.tiles()
	keys = append([]string{manifestKey(p.object)}, p.values()...)
	if p.m.inline() {
		tiles = -1
	}
	replaced := ""
	if p.old != nil {
		replaced = p.old.version
	}
	if replaced != "" {
		keys = append(keys, tileKeys(p.object, p.old)...)
	}
	return keys, append([]any{tiles, replaced, life.Milliseconds(), tileLife.Milliseconds()}, p.m.values(p.object)...)
}

// values are the keys of what is sent: the tiles, or the hash that holds the blob and becomes the manifest.
func (p *putting) values() []string {
	if p.m.inline() {
		return []string{p.staged()}
	}
	return tileKeys(p.object, &p.m)
}

// commit makes the tiles visible in the place of whatever is there.
func (p *putting) commit(ctx context.Context) error {
	for range attempts {
		keys, args := p.commitment()
		done, err := commitScript.Run(ctx, p.client, keys, args...).Int()
		switch {
		case err != nil:
			return err
		case done == 1:
			return nil
		case done < 0:
			return errTileLost
		}
		p.old, err = p.manifest(ctx, p.object)
		switch {
		case errors.Is(err, errNoManifest):
			p.old = nil
		case errors.Is(err, errDamaged):
			p.old, err = nil, p.discard(ctx, p.object)
			if err != nil {
				return err
			}
		case err != nil:
			return err
		case done == 2: // somebody put after us, and was faster
			p.unlink(ctx)
			return nil
		}
	}
	return errConflict
}

// giveUp removes what was sent of a put that failed, and takes it out of the account again. It reports whether the object has
// been committed all the same, its answer lost: then it stays, since another sender may rely on it. What giveUp cannot do, time and
// the sweeper do.
func (p *putting) giveUp(ctx context.Context) (committed bool) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), p.Store.opt.Timeout, errSlow)
	defer cancel()
	keys := append([]string{manifestKey(p.object)}, p.values()...)
	there, err := abandonScript.Run(ctx, p.client, keys, p.m.version).Int()
	if err != nil || there == 1 {
		return err == nil
	}
	_ = p.forget(ctx, tenantName(p.key.Tenant), p.key.Object, strconv.FormatInt(p.m.seq, 10))
	return false
}

// unlink removes what was sent.
func (p *putting) unlink(ctx context.Context) {
	if keys := p.values(); len(keys) > 0 {
		_ = p.client.Unlink(ctx, keys...).Err()
	}
}

// token is a name that nobody else has.
func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
