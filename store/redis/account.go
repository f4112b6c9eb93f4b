package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
)

// reservation is a place in a tenant's account.
type reservation struct {
	seq    int64
	known  bool // the object had a place already, which was left as it is
	doomed map[string]int64
}

// reserve gives the object a place in its tenant's account before a byte of it is written, and chooses what has to go.
func (s *Store) reserve(ctx context.Context, key *store.Key, size int64, opt store.PutOptions, replace bool, keep string) (reservation, error) {
	again := 0
	if replace {
		again = 1
	}
	r, _, err := parseReservation(reserveScript.Run(ctx, s.client, s.keys.account(tenantName(key.Tenant)),
		key.Object, size, max(0, opt.TTL.Milliseconds()), opt.Quota, again, keep))
	return r, err
}

// parseReservation reads what a script answers that reserves. state is the second number of the answer.
func parseReservation(answer *goredis.Cmd) (r reservation, state int64, err error) {
	reply, err := answer.Slice()
	if err != nil {
		return r, 0, err
	}
	r.doomed = map[string]int64{}
	ok := len(reply) >= 2 && len(reply)%2 == 0 && number(reply[0], &r.seq) && number(reply[1], &state)
	r.known = state == 1
	for i := 2; ok && i < len(reply); i += 2 {
		object, isText := reply[i].(string)
		var seq int64
		ok = isText && number(reply[i+1], &seq)
		r.doomed[object] = seq
	}
	if !ok {
		return reservation{}, 0, errors.New("reserve: unexpected reply")
	}
	return r, state, nil
}

func number(v any, dst *int64) bool {
	switch x := v.(type) {
	case int64:
		*dst = x
		return true
	case string:
		n, err := strconv.ParseInt(x, 10, 64)
		*dst = n
		return err == nil
	}
	return false
}

// evict removes the values of objects that are out of the account already. What cannot be removed now stays doomed:
// the tenant's next Put and the sweeper try again.
func (s *Store) evict(ctx context.Context, key *store.Key, doomed map[string]int64) {
	if len(doomed) > 0 {
		s.bury(ctx, tenantName(key.Tenant), doomed)
	}
}

// bury removes doomed objects of a tenant, unless they were put again. One that is not there may be about to be
// committed by its writer: it stays doomed until that cannot be any more.
func (s *Store) bury(ctx context.Context, tenant string, doomed map[string]int64) {
	names := make([]string, 0, len(doomed))
	for name := range doomed {
		names = append(names, name)
	}
	_ = parallel(ctx, len(names), s.opt.Parallel, func(ctx context.Context, i int) error {
		gone, err := s.removeUpTo(ctx, tenant, names[i], doomed[names[i]])
		if err != nil {
			return err
		}
		switch {
		case gone:
			s.evicted.Add(1)
		case doomed[names[i]] > s.settled():
			return nil
		}
		return s.client.HDel(ctx, s.keys.account(tenant)[4], names[i]).Err()
	})
}

// settled is the latest place in an account whose writer is done, one way or the other.
func (s *Store) settled() int64 { return time.Now().Add(-s.opt.Staging).UnixMicro() }

// removeUpTo removes the object or the place of that name unless it was put after seq.
func (s *Store) removeUpTo(ctx context.Context, tenant, name string, seq int64) (gone bool, err error) {
	if place, ok := strings.CutPrefix(name, placePrefix); ok { // what was marked again meanwhile is only a hint that is lost
		n, err := s.client.Unlink(ctx, s.keys.named(tenant, place)+marksSuffix).Result()
		return n > 0, err
	}
	object := s.keys.named(tenant, name)
	for range attempts {
		m, err := s.manifest(ctx, object)
		switch {
		case errors.Is(err, errNoManifest):
			return false, nil
		case errors.Is(err, errDamaged):
			return true, s.discard(ctx, object)
		case err != nil:
			return false, err
		case m.seq > seq:
			return false, nil
		}
		if gone, err := s.remove(ctx, object, m); gone || err != nil {
			return gone, err
		}
	}
	return false, errConflict
}

// remove deletes one version, manifest and tiles, and reports whether it was still the one that is there.
func (s *Store) remove(ctx context.Context, object string, m *manifest) (bool, error) {
	keys := append([]string{manifestKey(object)}, tileKeys(object, m)...)
	n, err := removeScript.Run(ctx, s.client, keys, m.version).Int()
	return n == 1, err
}

// discard deletes a manifest that is not what was written. Which tiles it had cannot be known: the sweeper finds them.
func (s *Store) discard(ctx context.Context, object string) error {
	return s.client.Unlink(ctx, manifestKey(object)).Err()
}

// forget takes an object out of its tenant's account; with a seq, only if it was not put again after that.
func (s *Store) forget(ctx context.Context, tenant, object, seq string) error {
	if err := forgetScript.Run(ctx, s.client, s.keys.account(tenant)[:4], object, seq).Err(); err != nil {
		return fmt.Errorf("forget: %w", err)
	}
	return nil
}
