package redis

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	sweepKeys  = 50_000 // keys of one server that one sweep looks at; the next one goes on from there
	sweepBatch = 500
	sampleSize = 256 // objects of one account that one sweep looks for
)

// sweeper sweeps until ctx ends. Of the processes that share a Redis one sweeps at a time.
func (s *Store) sweeper(ctx context.Context) {
	defer close(s.swept)
	tick := time.NewTicker(s.opt.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		mine, err := s.client.SetNX(ctx, s.keys.sweep(), s.owner, s.opt.SweepEvery*9/10).Result()
		if err == nil && mine {
			err = s.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errOpen) {
			s.opt.Logger.WarnContext(ctx, "redis_sweep_failed", "error", err)
		}
	}
}

// Sweep compares the accounts with what is stored and repairs both: what a process left undone that died between two
// steps, and what a server lost. The store does this by itself now and then.
func (s *Store) Sweep(ctx context.Context) error {
	sweep := func(ctx context.Context, c *goredis.Client) error { return s.sweepServer(ctx, c) }
	switch c := s.client.(type) {
	case *goredis.ClusterClient:
		return c.ForEachMaster(ctx, sweep)
	case *goredis.Client:
		return sweep(ctx, c)
	}
	return nil
}

func (s *Store) sweepServer(ctx context.Context, c *goredis.Client) error {
	server := c.Options().Addr
	var cursor uint64
	if from, ok := s.cursors.Load(server); ok {
		cursor = from.(uint64)
	}
	for seen := 0; seen < sweepKeys; {
		keys, next, err := c.Scan(ctx, cursor, escape(s.keys.prefix)+"{*", sweepBatch).Result()
		if err != nil {
			return err
		}
		cursor, seen = next, seen+sweepBatch
		if err := s.sweepBatch(ctx, keys); err != nil {
			return err
		}
		if cursor == 0 {
			break
		}
	}
	s.cursors.Store(server, cursor)
	return nil
}

// escape makes a text mean itself in a pattern.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// found is a key taken apart.
type found struct{ key, tenant, object, rest string }

func (s *Store) sweepBatch(ctx context.Context, names []string) error {
	var accounts, manifests, tiles, places []found
	for _, name := range names {
		tenant, object, rest, ok := s.keys.ownerOf(name)
		f := found{name, tenant, object, rest}
		switch {
		case !ok:
		case object == "" && rest == accountSuffix:
			accounts = append(accounts, f)
		case object != "" && rest == manifestSuffix:
			manifests = append(manifests, f)
		case object != "" && rest == marksSuffix:
			places = append(places, f)
		case object != "" && strings.Count(rest, ":") == 2:
			tiles = append(tiles, f)
		}
	}
	var all error
	for _, a := range accounts {
		all = errors.Join(all, s.audit(ctx, a.tenant))
	}
	return errors.Join(all, s.adopt(ctx, manifests), s.adoptPlaces(ctx, places), s.orphans(ctx, tiles))
}

// audit drops from an account what has expired, what is doomed, and what is not stored.
func (s *Store) audit(ctx context.Context, tenant string) error {
	keys := s.keys.account(tenant)
	if err := usageScript.Run(ctx, s.client, keys).Err(); err != nil {
		return err
	}
	late, err := s.client.HRandFieldWithValues(ctx, keys[4], sampleSize).Result()
	if err != nil {
		return err
	}
	doomed := map[string]int64{}
	for _, kv := range late {
		doomed[kv.Key], _ = strconv.ParseInt(kv.Value, 10, 64)
	}
	s.bury(ctx, tenant, doomed)
	sample, err := s.client.HRandFieldWithValues(ctx, keys[0], sampleSize).Result()
	if err != nil {
		return err
	}
	there, err := s.ask(ctx, len(sample), func(p goredis.Pipeliner, i int) {
		if place, ok := strings.CutPrefix(sample[i].Key, placePrefix); ok {
			p.Exists(ctx, s.keys.named(tenant, place)+marksSuffix)
			return
		}
		p.Exists(ctx, manifestKey(s.keys.named(tenant, sample[i].Key)))
	})
	if err != nil {
		return err
	}
	settled := s.settled()
	for i, kv := range sample {
		_, seq, _ := strings.Cut(kv.Value, " ")
		if n, err := strconv.ParseInt(seq, 10, 64); there[i].(*goredis.IntCmd).Val() == 1 || err != nil || n > settled {
			continue // or still being written
		}
		if err := s.forget(ctx, tenant, kv.Key, seq); err != nil {
			return err
		}
		s.repairs.Add(1)
	}
	return nil
}

// ask sends n questions together.
func (s *Store) ask(ctx context.Context, n int, question func(p goredis.Pipeliner, i int)) ([]goredis.Cmder, error) {
	if n == 0 {
		return nil, nil
	}
	answers, err := s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i := range n {
			question(p, i)
		}
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return nil, err
	}
	return answers, nil
}

// adopt adds to the accounts what is stored and not in them, because a server lost an account.
func (s *Store) adopt(ctx context.Context, manifests []found) error {
	known, err := s.ask(ctx, len(manifests), func(p goredis.Pipeliner, i int) {
		p.HExists(ctx, s.keys.account(manifests[i].tenant)[0], manifests[i].object)
	})
	if err != nil {
		return err
	}
	for i, f := range manifests {
		if known[i].(*goredis.BoolCmd).Val() {
			continue
		}
		m, err := s.manifest(ctx, s.keys.named(f.tenant, f.object))
		if missing(err) {
			continue // whoever reads it will see
		}
		if err != nil {
			return err
		}
		life, err := s.client.PTTL(ctx, f.key).Result()
		if err != nil {
			return err
		}
		left := life.Milliseconds()
		if life == forEver {
			left = -1
		}
		n, err := adoptScript.Run(ctx, s.client, s.keys.account(f.tenant), f.object, m.size, m.seq, left).Int64()
		if err != nil {
			return err
		}
		s.repairs.Add(uint64(n))
	}
	return nil
}

// adoptPlaces adds to the accounts the marks that are not in them: whoever made them died before, or a server lost the account.
func (s *Store) adoptPlaces(ctx context.Context, places []found) error {
	known, err := s.ask(ctx, len(places), func(p goredis.Pipeliner, i int) {
		p.HExists(ctx, s.keys.account(places[i].tenant)[0], placePrefix+places[i].object)
	})
	if err != nil {
		return err
	}
	for i, f := range places {
		if known[i].(*goredis.BoolCmd).Val() {
			continue
		}
		marks, err := s.client.HLen(ctx, f.key).Result()
		if err != nil {
			return err
		}
		life, err := s.client.PTTL(ctx, f.key).Result()
		if err != nil {
			return err
		}
		if marks == 0 || life <= 0 {
			continue
		}
		n, err := adoptScript.Run(ctx, s.client, s.keys.account(f.tenant), placePrefix+f.object, marks*markBytes, time.Now().UnixMicro(), life.Milliseconds()).Int64()
		if err != nil {
			return err
		}
		s.repairs.Add(uint64(n))
	}
	return nil
}

// orphans removes tiles that live for ever and that no manifest names, because the manifest was lost.
func (s *Store) orphans(ctx context.Context, tiles []found) error {
	lives, err := s.ask(ctx, len(tiles), func(p goredis.Pipeliner, i int) { p.PTTL(ctx, tiles[i].key) })
	if err != nil {
		return err
	}
	for i, f := range tiles {
		if lives[i].(*goredis.DurationCmd).Val() != forEver {
			continue // it goes, or has gone, by itself
		}
		// In this order: a tile that lives for ever was committed, so its manifest is there unless it was replaced.
		version, err := s.client.HGet(ctx, manifestKey(s.keys.named(f.tenant, f.object)), "version").Result()
		if err != nil && !errors.Is(err, goredis.Nil) {
			return err
		}
		if version != "" && strings.HasPrefix(f.rest, ":"+version+":") {
			continue
		}
		n, err := s.client.Unlink(ctx, f.key).Result()
		if err != nil {
			return err
		}
		s.repairs.Add(uint64(n))
	}
	return nil
}

// forEver is PTTL's answer for a key without an expiry.
const forEver = time.Duration(-1)
