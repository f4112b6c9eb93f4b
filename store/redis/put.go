package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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

	m   manifest
	old *manifest // what is replaced; nil: nothing known
}

func (p *putting) run(ctx context.Context) error {
	now := p.now()
	p.m = manifest{version: token(), size: int64(len(p.blob)), tile: int64(p.Store.opt.TileBytes), kind: p.Store.opt.Sum, created: now.UnixMilli()}
	if p.m.size > 0 && p.m.size <= min(inlineBytes, p.m.tile) {
		p.m.tile = 0
	}
	if p.opt.TTL > 0 {
		p.m.expires = max(0, now.Add(p.opt.TTL).UnixMilli()) // a sum past the end of time is never
	}
	r, err := p.reserve(ctx, &p.key, p.m.size, p.opt, false, "")
	if err != nil {
		return err
	}
	if r.known {
		done, err := p.known(ctx)
		if err != nil || done {
			p.evict(ctx, &p.key, r.doomed)
			return err
		}
		if r, err = p.reserve(ctx, &p.key, p.m.size, p.opt, true, ""); err != nil {
			return err
		}
	}
	p.m.seq = r.seq
	if err := p.write(ctx); err != nil {
		p.giveUp(ctx)
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

// write sends the tiles, then commits. A single tile and its commit share a round trip; a blob in the manifest needs no tile.
func (p *putting) write(ctx context.Context) error {
	if p.m.inline() {
		p.m.sums = p.m.ofAll(p.blob)
		return p.commit(ctx)
	}
	if p.m.tiles() == 1 {
		p.m.sums = p.m.ofAll(p.blob)
		keys, args := p.commitment()
		answers, err := p.client.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			p.sendTile(ctx, pipe, 0)
			commitScript.EvalSha(ctx, pipe, keys, args...)
			return nil
		})
		if err != nil && !goredis.HasErrorPrefix(err, "NOSCRIPT") && !errors.Is(err, goredis.Nil) {
			return err
		}
		if done, err := answers[1].(*goredis.Cmd).Int(); err == nil && done == 1 {
			return nil
		}
		return p.commit(ctx) // the script is new to this server, or something is there
	}
	n := p.m.kind.bytes()
	p.m.sums = make([]byte, n*p.m.tiles())
	err := parallel(ctx, p.m.tiles(), p.Store.opt.Parallel, func(ctx context.Context, i int) error {
		from, to := p.m.span(i)
		p.m.kind.of(p.m.sums[n*i:n*(i+1)], p.blob[from:to])
		return p.sendTile(ctx, p.client, i).Err()
	})
	if err != nil {
		return err
	}
	return p.commit(ctx)
}

// sendTile writes a tile unless it is there: a command that the network held back, and that was sent again meanwhile,
// must not shorten the life of what is committed by now.
func (p *putting) sendTile(ctx context.Context, to goredis.Cmdable, i int) *goredis.BoolCmd {
	from, end := p.m.span(i)
	return to.SetNX(ctx, tileKey(p.object, p.m.version, i), p.blob[from:end], p.Store.opt.Staging)
}

// commitment is the keys and arguments of the commit.
func (p *putting) commitment() (keys []string, args []any) {
	life, tileLife := time.Duration(0), time.Duration(0)
	if p.m.expires != 0 {
		life = p.opt.TTL
		tileLife = life + tileGrace
	}
	keys = append([]string{manifestKey(p.object)}, tileKeys(p.object, &p.m)...)
	replaced := ""
	if p.old != nil {
		replaced = p.old.version
	}
	if replaced != "" {
		keys = append(keys, tileKeys(p.object, p.old)...)
	}
	args = append([]any{p.m.tiles(), replaced, life.Milliseconds(), tileLife.Milliseconds()}, p.m.values(p.object)...)
	if p.m.inline() {
		args = append(args, blobField, p.blob)
	}
	return keys, args
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
			p.unlinkTiles(ctx)
			return nil
		}
	}
	return errConflict
}

// parallel calls f for 0 to n-1, a few at a time, and returns the first error, which also ends the others' context.
func parallel(ctx context.Context, n, limit int, f func(ctx context.Context, i int) error) error {
	if n == 1 {
		return f(ctx, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, limit) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// giveUp takes what failed out of the account again. If that fails too, the sweeper does it.
func (p *putting) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), p.Store.opt.Timeout, errSlow)
	defer cancel()
	_ = p.forget(ctx, tenantName(p.key.Tenant), p.key.Object, strconv.FormatInt(p.m.seq, 10))
	p.unlinkTiles(ctx)
}

func (p *putting) unlinkTiles(ctx context.Context) {
	if p.m.tiles() > 0 {
		_ = p.client.Unlink(ctx, tileKeys(p.object, &p.m)...).Err()
	}
}

// manifest reads the manifest of an object: errNoManifest when there is none, errDamaged when it is not what was written.
func (s *Store) manifest(ctx context.Context, object string) (*manifest, error) {
	values, err := s.values(ctx, object, fields)
	if err != nil {
		return nil, err
	}
	return parseManifest(object, values)
}

// contents is manifest, and the blob if it is in the manifest's hash.
func (s *Store) contents(ctx context.Context, object string) (*manifest, string, error) {
	values, err := s.values(ctx, object, fieldsAndBlob)
	if err != nil {
		return nil, "", err
	}
	m, err := parseManifest(object, values[:len(fields)])
	blob, _ := values[len(fields)].(string)
	return m, blob, err
}

var fieldsAndBlob = append(slices.Clone(fields), blobField)

func (s *Store) values(ctx context.Context, object string, names []string) ([]any, error) {
	values, err := s.client.HMGet(ctx, manifestKey(object), names...).Result()
	switch {
	case goredis.HasErrorPrefix(err, "WRONGTYPE"), err == nil && len(values) != len(names):
		return nil, errDamaged
	}
	return values, err
}

func missing(err error) bool { return errors.Is(err, errNoManifest) || errors.Is(err, errDamaged) }

// token is a name that nobody else has.
func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
