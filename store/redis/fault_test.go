package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// load is writers and readers that go on whatever happens. A writer repeats a Put that was not answered, as a sender
// does with its page.
type load struct {
	s       *redis.Store
	group   sync.WaitGroup
	stop    context.CancelFunc
	ctx     context.Context
	mu      sync.Mutex
	done    map[int]bool // objects whose Put has returned
	retries atomic.Int64
	reads   atomic.Int64
	wrong   atomic.Int64
}

func startLoad(t *testing.T, s *redis.Store, writers, readers, objects int) *load {
	l := &load{s: s, done: map[int]bool{}}
	l.ctx, l.stop = context.WithCancel(context.WithoutCancel(t.Context()))
	var next atomic.Int64
	for range writers {
		l.group.Go(func() {
			for n := int(next.Add(1)); n <= objects && l.ctx.Err() == nil; n = int(next.Add(1)) {
				for {
					err := s.Put(l.ctx, loadKey(n), loadBlob(n), store.PutOptions{Quota: 1 << 40})
					if err == nil {
						break
					}
					if l.ctx.Err() != nil {
						return
					}
					if !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("Put: got %v, want nil or %v", err, store.ErrUnavailable)
						return
					}
					l.retries.Add(1)
				}
				l.mu.Lock()
				l.done[n] = true
				l.mu.Unlock()
			}
		})
	}
	for range readers {
		l.group.Go(func() {
			for l.ctx.Err() == nil && l.count() < objects {
				_ = l.read(t, 1+rand.IntN(objects))
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// read reads an object: it has its content, or is not found, or Redis is away.
func (l *load) read(t *testing.T, n int) error {
	got, err := l.s.Get(l.ctx, loadKey(n))
	l.reads.Add(1)
	switch {
	case err == nil && !bytes.Equal(got, loadBlob(n)):
		l.wrong.Add(1)
		t.Errorf("object %d: got %d other bytes than were put", n, len(got))
	case err != nil && l.ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrUnavailable):
		t.Errorf("Get: got %v, want the content, %v or %v", err, store.ErrNotFound, store.ErrUnavailable)
	}
	return err
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.done)
}

// reach waits until that many objects are put.
func (l *load) reach(t *testing.T, objects int) {
	t.Helper()
	redistest.Eventually(t, fmt.Sprintf("%d objects are put", objects), func() bool { return l.count() >= objects })
}

func (l *load) end() {
	l.stop()
	l.group.Wait()
}

func loadKey(n int) store.Key {
	return store.Key{Tenant: "acme", Object: storetest.Object(fmt.Sprint(n))}
}
func loadBlob(n int) []byte { return storetest.Blob(uint64(n), 1+n*7919%150_000) }

// A redis-server that is killed while objects are put, and started again, never makes anybody read a wrong byte. With
// an append-only file nothing that was committed is lost; without one it is missed and put again.
func TestAKilledServerCostsNoWrongByte(t *testing.T) {
	for name, args := range map[string][]string{
		"append-only file": {"--appendonly", "yes", "--appendfsync", "always"},
		"no persistence":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kills, objects := 6, 600
			if testing.Short() {
				kills, objects = 2, 200
			}
			server := redistest.Start(t, args...)
			s := open(t, redis.Options{Addrs: []string{server.Addr}, TileBytes: 32 << 10, Breaker: redis.BreakerOptions{Pause: 20 * time.Millisecond, MaxPause: 50 * time.Millisecond}})
			l := startLoad(t, s, 4, 2, objects)
			for kill := range kills {
				l.reach(t, (kill+1)*objects/(kills+1))
				server.Kill()
				server.Restart(t)
			}
			l.reach(t, objects)
			found := 0
			for n := 1; n <= objects; n++ {
				err := l.read(t, n)
				if err == nil {
					found++
				} else if args != nil {
					t.Errorf("object %d was committed: got %v, want it", n, err)
				}
			}
			l.end()
			t.Logf("%d kills, %d puts repeated, %d reads, %d wrong, %d of %d objects there at the end, %d damaged",
				kills, l.retries.Load(), l.reads.Load(), l.wrong.Load(), found, objects, s.Stats().Damaged)
			if got := s.Stats().Damaged; got != 0 && args != nil {
				t.Errorf("Damaged: got %d, want 0", got)
			}
		})
	}
}

// A slot that moves to another node while its objects and accounts are read and written is not noticed, but for
// operations that have to be repeated.
func TestASlotMovesWhileItIsUsed(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	client := cluster.Client(t)
	s := open(t, redis.Options{Addrs: cluster.Addrs(), TileBytes: 16 << 10})
	const objects = 300
	l := startLoad(t, s, 4, 3, objects)
	tags := []string{"acme"}
	for n := range 6 {
		tags = append(tags, "acme:"+loadKey(1+n*objects/6).Object)
	}
	for i, tag := range tags {
		l.reach(t, i*objects/len(tags))
		slot := int(client.ClusterKeySlot(t.Context(), "{"+tag+"}").Val())
		cluster.MoveSlot(t, slot, (cluster.Owner(t, slot)+1)%3)
	}
	l.reach(t, objects)
	total := int64(0)
	for n := 1; n <= objects; n++ {
		if err := l.read(t, n); err != nil {
			t.Errorf("object %d: got %v, want it", n, err)
		}
		total += int64(len(loadBlob(n)))
	}
	l.end()
	if n, b, err := s.Usage(t.Context(), "acme"); n != objects || b != total || err != nil {
		t.Errorf("Usage: got %d objects of %d bytes, %v, want %d of %d", n, b, err, objects, total)
	}
	t.Logf("%d slots moved, %d puts repeated, %d reads, %d wrong", len(tags), l.retries.Load(), l.reads.Load(), l.wrong.Load())
}

// A network that falls silent, or drops its connections, in the middle of everything.
func TestANetworkThatIsCutCostsNoWrongByte(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr)
	s := open(t, redis.Options{
		Addrs: []string{proxy.Addr}, TileBytes: 32 << 10, Timeout: 200 * time.Millisecond,
		Breaker: redis.BreakerOptions{Pause: 20 * time.Millisecond, MaxPause: 50 * time.Millisecond},
	})
	const objects, cuts = 400, 8
	l := startLoad(t, s, 4, 2, objects)
	for cut := range cuts {
		l.reach(t, (cut+1)*objects/(cuts+1))
		if cut%2 == 0 {
			proxy.Drop()
			continue
		}
		before := s.Stats().Failures
		proxy.Cut()
		redistest.Eventually(t, "the cut is noticed", func() bool { return s.Stats().Failures > before })
		proxy.Heal()
	}
	l.reach(t, objects)
	for n := 1; n <= objects; n++ {
		redistest.Eventually(t, "the object is read", func() bool { return l.read(t, n) == nil })
	}
	l.end()
	t.Logf("%d cuts, %d puts repeated, %d reads, %d wrong", cuts, l.retries.Load(), l.reads.Load(), l.wrong.Load())
	raw := server.Client(t)
	named := map[string]bool{}
	for n := 1; n <= objects; n++ {
		named[raw.HGet(t.Context(), base("", loadKey(n))+":m", "version").Val()] = true
	}
	for _, key := range keysLike(t, raw, "{acme:*}:*:*") {
		version := key[len(base("", loadKey(1)))+1:][:16]
		if life := raw.PTTL(t.Context(), key).Val(); !named[version] && life < 0 {
			t.Errorf("%s: a tile that no manifest names lives for ever", key)
		}
	}
}

// A Redis that is away costs a page a bounded time, and after a few failures next to none.
func TestARedisThatIsAwayIsLeftAlone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := redistest.NewProxy(t, server.Addr)
	const timeout = 150 * time.Millisecond
	s := open(t, redis.Options{Addrs: []string{proxy.Addr}, Timeout: timeout, Breaker: redis.BreakerOptions{Failures: 3, Pause: time.Hour, MaxPause: time.Hour}})
	put(t, s, testKey("a"), storetest.Blob(1, 1000), store.PutOptions{})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping: got %v, want nil", err)
	}
	proxy.Cut()
	for s.Stats().Open == 0 {
		start := time.Now()
		_, err := s.Get(t.Context(), testKey("a"))
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Get: got %v, want %v", err, store.ErrUnavailable)
		}
		if took := time.Since(start); took > 20*timeout {
			t.Errorf("Get: took %v, want little more than %v", took, timeout)
		}
	}
	failures := s.Stats().Failures
	for range 100 {
		if err := s.Put(t.Context(), testKey("b"), storetest.Blob(2, 1000), store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Put: got %v, want %v", err, store.ErrUnavailable)
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Ping: got %v, want %v", err, store.ErrUnavailable)
	}
	got := s.Stats()
	if got.Failures != failures {
		t.Errorf("Failures with an open breaker: got %d more, want none: nothing may be sent", got.Failures-failures)
	}
	if got.Refused < 100 {
		t.Errorf("Refused: got %d, want at least 100", got.Refused)
	}
}

// Once Redis is there again, the store finds out by itself.
func TestARedisThatComesBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	s := open(t, redis.Options{Addrs: []string{server.Addr}, Breaker: redis.BreakerOptions{Failures: 2, Pause: time.Millisecond, MaxPause: 20 * time.Millisecond}})
	put(t, s, testKey("a"), storetest.Blob(1, 1000), store.PutOptions{})
	server.Kill()
	redistest.Eventually(t, "the breaker opens", func() bool {
		_, err := s.Get(t.Context(), testKey("a"))
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Get: got %v, want %v", err, store.ErrUnavailable)
		}
		return s.Stats().Open == 1
	})
	server.Restart(t)
	redistest.Eventually(t, "the object is read", func() bool {
		_, err := s.Get(t.Context(), testKey("a"))
		return err == nil
	})
	if got := s.Stats().Open; got != 0 {
		t.Errorf("Open: got %d, want 0", got)
	}
}

// One node of a cluster that is away takes only its own objects with it.
func TestOneNodeThatIsAwayTakesOnlyItsOwnObjects(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t, "--cluster-require-full-coverage", "no")
	client := cluster.Client(t)
	s := open(t, redis.Options{Addrs: cluster.Addrs()})
	for n := range 30 {
		put(t, s, loadKey(n), loadBlob(n), store.PutOptions{})
	}
	lost := cluster.Owner(t, int(client.ClusterKeySlot(t.Context(), "{acme:"+loadKey(0).Object+"}").Val()))
	owner := make([]int, 30)
	for n := range owner {
		owner[n] = cluster.Owner(t, int(client.ClusterKeySlot(t.Context(), "{acme:"+loadKey(n).Object+"}").Val()))
	}
	cluster.Nodes[lost].Kill()
	for range 3 {
		for n := range owner {
			_, err := s.Get(t.Context(), loadKey(n))
			if want := owner[n] != lost; (err == nil) != want {
				t.Errorf("object %d of node %d, when %d is away: got %v", n, owner[n], lost, err)
			}
		}
	}
	if err := s.Ping(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Ping: got %v, want %v", err, store.ErrUnavailable)
	}
}
