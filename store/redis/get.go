package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
)

// Get returns the object's bytes, which belong to the caller, or store.ErrNotFound.
func (s *Store) Get(ctx context.Context, key store.Key) ([]byte, error) {
	blob, _, err := s.Fetch(ctx, key)
	return blob, err
}

// Fetch is Get and Stat of one version. Every tile is checked: an object of which one is missing or changed is removed,
// counted, and not found.
func (s *Store) Fetch(ctx context.Context, key store.Key) ([]byte, store.Info, error) {
	if err := s.enter(ctx, key, "get"); err != nil {
		return nil, store.Info{}, err
	}
	defer s.gate.RUnlock()
	object := s.keys.object(key)
	var last string // version that could not be read
	for range attempts {
		m, inline, err := s.lookup(ctx, object)
		if err == nil {
			var blob []byte
			if blob, err = s.read(ctx, object, m, inline); err == nil {
				s.hits.Add(1)
				return blob, m.info(), nil
			}
		}
		switch {
		case errors.Is(err, errNoManifest):
			s.misses.Add(1)
			return nil, store.Info{}, fmt.Errorf("get object: %w", store.ErrNotFound)
		case !errors.Is(err, errDamaged):
			return nil, store.Info{}, unavailable(ctx, "get object", err)
		case m != nil && m.version != last:
			last = m.version // replaced while it was read, or a reply went astray: look again
			continue
		}
		if err := s.bin(ctx, key, object, m); err != nil {
			return nil, store.Info{}, unavailable(ctx, "get object", err)
		}
	}
	return nil, store.Info{}, unavailable(ctx, "get object", errConflict)
}

// lookup is contents within the time of one small operation.
func (s *Store) lookup(ctx context.Context, object string) (*manifest, string, error) {
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	m, inline, err := s.contents(ctx, object)
	if errors.Is(err, errDamaged) {
		return nil, "", err
	}
	return m, inline, err
}

// read reads and checks every tile: errDamaged when one is missing or not what was written. inline is what was in the
// manifest's hash.
func (s *Store) read(ctx context.Context, object string, m *manifest, inline string) ([]byte, error) {
	if m.inline() {
		blob, err := goredis.NewStringResult(inline, nil).Bytes() // the same memory, which the library read the reply into
		if err != nil || int64(len(blob)) != m.size || !m.matches(0, blob) {
			return nil, errDamaged
		}
		return blob, nil
	}
	ctx, cancel := s.deadline(ctx, m.size)
	defer cancel()
	const line = 2 // the library reads value and line end at once where there is room for both
	buf := make([]byte, m.size+line)
	blob, per := buf[:m.size:m.size], m.perTrip()
	err := parallel(ctx, (m.tiles()+per-1)/per, s.opt.Parallel, func(ctx context.Context, trip int) error {
		return s.readTiles(ctx, object, m, trip*per, min((trip+1)*per, m.tiles()), buf)
	})
	return blob, err
}

// readTiles reads the tiles from first to end in one round trip, to where they belong in buf.
func (s *Store) readTiles(ctx context.Context, object string, m *manifest, first, end int, buf []byte) error {
	if first == end {
		return nil
	}
	place := func(i int) []byte {
		from, to := m.span(i)
		if to == m.size {
			to = int64(len(buf))
		}
		return buf[from:to]
	}
	tiles := make([]*goredis.ZeroCopyStringCmd, end)
	ask := func() error {
		_, err := s.client.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for i := first; i < end; i++ {
				tiles[i] = pipe.GetToBuffer(ctx, tileKey(object, m.version, i), place(i))
			}
			return nil
		})
		return err
	}
	err := ask()
	for range 2 { // the library never repeats a read into a buffer by itself
		if err == nil || errors.Is(err, goredis.Nil) || errors.Is(err, errOpen) || ctx.Err() != nil {
			break
		}
		err = ask()
	}
	for i := first; i < end; i++ {
		from, to := m.span(i)
		n, err := tiles[i].Result()
		switch {
		case errors.Is(err, goredis.Nil), goredis.HasErrorPrefix(err, "WRONGTYPE"), err != nil && tooLong(err):
			return errDamaged
		case err != nil:
			return err
		case int64(n) != to-from || !m.matches(i, place(i)[:n]):
			return errDamaged
		}
	}
	return nil
}

// tooLong reports a tile that is longer than its place.
func tooLong(err error) bool {
	const says = "redis: buffer too small"
	return len(err.Error()) >= len(says) && err.Error()[:len(says)] == says
}

// bin removes a damaged object, unless another version has taken its place.
func (s *Store) bin(ctx context.Context, key store.Key, object string, m *manifest) error {
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	tenant := tenantName(key.Tenant)
	if m == nil {
		if err := s.discard(ctx, object); err != nil {
			return err
		}
		s.damaged.Add(1)
		s.opt.Logger.WarnContext(ctx, "object_damaged", "tenant", key.Tenant, "object", key.Object, "part", "manifest")
		return s.forget(ctx, tenant, key.Object, "")
	}
	gone, err := s.remove(ctx, object, m)
	if err != nil || !gone {
		return err
	}
	s.damaged.Add(1)
	s.opt.Logger.WarnContext(ctx, "object_damaged", "tenant", key.Tenant, "object", key.Object, "part", "tile")
	return s.forget(ctx, tenant, key.Object, strconv.FormatInt(m.seq, 10))
}
