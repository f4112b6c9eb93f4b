package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
)

// Store keeps objects in Redis. Open it with [Open]. All methods are safe for concurrent use.
type Store struct {
	opt    Options
	client goredis.UniversalClient
	keys   keys
	owner  string // of this process's claims

	apart atomic.Bool // account and object may lie on different servers: no script has both
	clock clock

	gate   sync.RWMutex // held for reading by every operation, for writing by Close
	closed bool

	counts                                  counts
	hits, misses, damaged, evicted, repairs atomic.Uint64

	cursors sync.Map // of the sweep: where it goes on, by server

	stop  context.CancelFunc
	swept chan struct{} // closed when the sweeper has ended; nil: there is none
}

// Open prepares the store. It does not wait for Redis: a server that is away is store.unavailable for each operation,
// and [Store.Ping] says so.
func Open(opt Options) (*Store, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{opt: opt, keys: keys{prefix: opt.Prefix}, owner: token()}
	s.client = connect(&s.opt, &s.counts)
	_, cluster := s.client.(*goredis.ClusterClient)
	s.apart.Store(cluster)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	if opt.SweepEvery > 0 {
		s.swept = make(chan struct{})
		go s.sweeper(ctx)
	}
	return s, nil
}

// enter begins an operation: on success the caller holds gate for reading.
func (s *Store) enter(ctx context.Context, key store.Key, op string) error {
	if err := key.Validate(); err != nil {
		return fmt.Errorf("%s object: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s object: %w", op, err)
	}
	return s.open(op + " object")
}

// open is enter for what concerns no one object.
func (s *Store) open(op string) error {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return fmt.Errorf("%s: %w", op, store.ErrClosed)
	}
	return nil
}

// Ping reports whether Redis answers, all masters of a cluster included.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.open("ping"); err != nil {
		return err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	ping := func(ctx context.Context, c *goredis.Client) error { return c.Ping(ctx).Err() }
	var err error
	switch c := s.client.(type) {
	case *goredis.ClusterClient:
		err = c.ForEachMaster(ctx, ping)
	case *goredis.Client:
		err = ping(ctx, c)
	}
	if err != nil {
		return unavailable(ctx, "ping", err)
	}
	return nil
}

// Trial is Ping and, by a script, a small write, as every put needs both.
func (s *Store) Trial(ctx context.Context) error {
	if err := s.Ping(ctx); err != nil {
		return err
	}
	if err := s.open("trial"); err != nil {
		return err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	if err := trialScript.Run(ctx, s.client, []string{s.keys.trial()}, s.owner).Err(); err != nil {
		return unavailable(ctx, "trial write", err)
	}
	return nil
}

// Stat describes the object, or returns store.ErrNotFound.
func (s *Store) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	if err := s.enter(ctx, key, "stat"); err != nil {
		return store.Info{}, err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	m, err := s.manifest(ctx, s.keys.object(key))
	switch {
	case err == nil:
		return m.info(), nil
	case missing(err):
		return store.Info{}, fmt.Errorf("stat object: %w", store.ErrNotFound)
	}
	return store.Info{}, unavailable(ctx, "stat object", err)
}

// Delete removes the object. An object that is not there is no error.
func (s *Store) Delete(ctx context.Context, key store.Key) error {
	if err := s.enter(ctx, key, "delete"); err != nil {
		return err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	object := s.keys.object(key)
	for range attempts {
		m, err := s.manifest(ctx, object)
		switch {
		case errors.Is(err, errNoManifest):
			return nil
		case errors.Is(err, errDamaged):
			err = s.discard(ctx, object)
		case err == nil:
			var done bool
			if done, err = s.remove(ctx, object, m); err == nil && done {
				err = s.forget(ctx, tenantName(key.Tenant), key.Object, strconv.FormatInt(m.seq, 10))
				if err == nil {
					return nil
				}
			}
		}
		if err != nil {
			return unavailable(ctx, "delete object", err)
		}
	}
	return unavailable(ctx, "delete object", errConflict)
}

// Usage is what the tenant stores now: the number of its objects and their bytes.
func (s *Store) Usage(ctx context.Context, tenant string) (objects int, bytes int64, err error) {
	if err := s.open("usage"); err != nil {
		return 0, 0, err
	}
	defer s.gate.RUnlock()
	ctx, cancel := s.deadline(ctx, 0)
	defer cancel()
	got, err := usageScript.Run(ctx, s.client, s.keys.account(tenantName(tenant))).Int64Slice()
	if err != nil || len(got) != 2 {
		return 0, 0, unavailable(ctx, "usage", err)
	}
	return int(got[0]), got[1], nil
}

// Stats is a snapshot of the store's counters.
func (s *Store) Stats() Stats {
	return Stats{
		Hits: s.hits.Load(), Misses: s.misses.Load(), Damaged: s.damaged.Load(), Evicted: s.evicted.Load(), Repaired: s.repairs.Load(),
		Failures: s.counts.failures.Load(), Refused: s.counts.refused.Load(), Open: int(s.counts.open.Load()),
	}
}

// Close waits for the operations under way, stops the sweeper and lets the connections go. Later calls get store.ErrClosed.
func (s *Store) Close() error {
	s.stop()
	if s.swept != nil {
		<-s.swept
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("close redis store: %w", err)
	}
	return nil
}

// now is the time that manifests are stamped with.
func (s *Store) now() time.Time { return time.Now().Truncate(time.Millisecond) }
