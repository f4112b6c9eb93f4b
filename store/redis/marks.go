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

// markBytes is what a mark counts in its tenant's account: about what Redis needs for it there and here.
const markBytes = 1 << 10

// placePrefix begins the names of places in accounts, among those of objects, which are hexadecimal.
const placePrefix = "@"

// Mark notes that an object follows place, for opt.TTL; 0 or less: store.MarkLife. Marks count as stored bytes of the tenant: over
// the quota its oldest objects and places make room.
func (s *Store) Mark(ctx context.Context, tenant, place string, m store.Mark, opt store.PutOptions) error {
	life := opt.TTL
	if err := s.enter(ctx, store.Key{Tenant: tenant, Object: place}, "mark"); err != nil {
		return err
	}
	defer s.gate.RUnlock()
	if life <= 0 {
		life = store.MarkLife
	}
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	key := []string{s.marksKey(tenant, place)}
	marks, err := markScript.Run(ctx, s.client, key, m.Name(), m.Object, life.Milliseconds(), store.MaxMarks).Int64()
	if err != nil {
		return unavailable(ctx, "mark object", err)
	}
	if marks == 0 { // nothing new
		return nil
	}
	account := store.Key{Tenant: tenant, Object: placePrefix + place}
	r, err := s.reserve(ctx, &account, marks*markBytes, store.PutOptions{TTL: life, Quota: opt.Quota}, true, m.Object)
	if err != nil { // what is not in the account yet, the sweep adds
		return unavailable(ctx, "mark object", err)
	}
	s.evict(ctx, &account, r.doomed)
	return nil
}

// Marked returns the marks at each of the places, of objects that are stored.
func (s *Store) Marked(ctx context.Context, tenant string, places []string) ([][]store.Mark, error) {
	if err := s.open("marks"); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	noted, err := s.ask(ctx, len(places), func(p goredis.Pipeliner, i int) { p.HGetAll(ctx, s.marksKey(tenant, places[i])) })
	if err != nil {
		return nil, unavailable(ctx, "marks", err)
	}
	found := make([][]store.Mark, len(places))
	var objects []string
	for i := range noted {
		for name, object := range noted[i].(*goredis.MapStringStringCmd).Val() {
			m, err := parseMark(name, object)
			if err == nil {
				found[i] = append(found[i], m)
				objects = append(objects, object)
			}
		}
	}
	there, err := s.ask(ctx, len(objects), func(p goredis.Pipeliner, i int) {
		p.Exists(ctx, manifestKey(s.keys.object(store.Key{Tenant: tenant, Object: objects[i]})))
	})
	if err != nil {
		return nil, unavailable(ctx, "marks", err)
	}
	n := 0
	for i := range found {
		kept := found[i][:0]
		for _, m := range found[i] {
			if there[n].(*goredis.IntCmd).Val() == 1 {
				kept = append(kept, m)
			}
			n++
		}
		found[i] = kept
	}
	return found, nil
}

func (s *Store) marksKey(tenant, place string) string {
	return s.keys.named(tenantName(tenant), place) + marksSuffix
}

var errMark = errors.New("not a mark")

// parseMark is the inverse of Mark.Name.
func parseMark(name, object string) (m store.Mark, err error) {
	parts := strings.Split(name, ":")
	if len(parts) != 4 {
		return m, errMark
	}
	for i, dst := range []*int{&m.LayerFirst, &m.Layers, &m.Tokens} {
		if *dst, err = strconv.Atoi(parts[i]); err != nil || *dst < 0 {
			return m, errMark
		}
	}
	m.To, m.Object = parts[3], object
	return m, store.Key{Tenant: "t", Object: object}.Validate()
}

// Claim asks to be the one that makes an object, for at most life. release gives the claim back. Where Redis does not
// answer the caller gets the claim, since doing the work twice is never wrong.
func (s *Store) Claim(ctx context.Context, key store.Key, life time.Duration) (release func(), mine bool) {
	nothing := func() {}
	if err := s.enter(ctx, key, "claim"); err != nil {
		return nothing, true
	}
	defer s.gate.RUnlock()
	claimCtx, cancel := s.deadline(ctx, 0)
	defer cancel()
	name, owner := s.keys.object(key)+":c", fmt.Sprintf("%s-%s", s.owner, token())
	mine, err := s.client.SetNX(claimCtx, name, owner, life).Result()
	if err != nil {
		return nothing, true
	}
	if !mine {
		return nothing, false
	}
	return func() { s.release(context.WithoutCancel(ctx), name, owner) }, true
}

func (s *Store) release(ctx context.Context, name, owner string) {
	if s.open("release") != nil {
		return
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	_ = releaseScript.Run(ctx, s.client, []string{name}, owner).Err() // it ends by itself
}
