package redis

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// trips counts what is sent and waited for: a command, or commands that go together.
type trips struct{ n atomic.Int64 }

func (c *trips) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *trips) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if !handshake(cmd) {
			c.n.Add(1)
		}
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if !handshake(cmds[0]) {
			c.n.Add(1)
		}
		return next(ctx, cmds)
	}
}

// openCounted is a store that does not sweep, and its round trips.
func openCounted(t *testing.T, opt Options) (*Store, func(what func()) int64) {
	t.Helper()
	opt.SweepEvery = -1
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	count := &trips{}
	s.client.AddHook(count)
	return s, func(what func()) int64 {
		before := count.n.Load()
		what()
		return count.n.Load() - before
	}
}

// On one server an object of one piece is put in one round trip and read in one, and one of more in as many as it has tiles; a cluster
// needs one more to put, for the account lies on another node.
func TestRoundTripsOfAnObject(t *testing.T) {
	t.Parallel()
	const tile = maxTileBytes
	for _, c := range []struct {
		name     string
		size     int
		put, get int64
	}{
		{"64 KiB", 64 << 10, 1, 1}, {"512 KiB", 512 << 10, 1, 1}, {"a whole tile", tile, 1, 1},
		{"a tile and a byte", tile + 1, 2, 3}, {"three tiles", 3 * tile, 3, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			one, count := openCounted(t, Options{Addrs: []string{redistest.Start(t).Addr}})
			countTrips(t, one, count, c.size, c.put, c.get)
		})
	}
	t.Run("in a cluster", func(t *testing.T) {
		t.Parallel()
		s, count := openCounted(t, Options{Addrs: redistest.StartCluster(t).Addrs()})
		countTrips(t, s, count, 64<<10, 2, 1)
	})
}

func countTrips(t *testing.T, s *Store, count func(func()) int64, size int, wantPut, wantGet int64) {
	t.Helper()
	put := func(name string, opt store.PutOptions) func() {
		return func() {
			if err := s.Put(t.Context(), store.Key{Tenant: "acme", Object: storetest.Object(name)}, storetest.Blob(1, size), opt); err != nil {
				t.Errorf("Put: got %v, want nil", err)
			}
		}
	}
	for i := range 6 { // scripts are loaded, and a cluster's nodes known
		put(string(rune('a'+i)), store.PutOptions{})()
	}
	life := store.PutOptions{TTL: time.Hour, Quota: 1 << 30}
	if got := count(put("new", life)); got != wantPut {
		t.Errorf("Put: got %d round trips, want %d", got, wantPut)
	}
	got := count(func() {
		blob, err := s.Get(t.Context(), store.Key{Tenant: "acme", Object: storetest.Object("new")})
		if err != nil || len(blob) != size {
			t.Errorf("Get: got %d bytes, %v, want %d", len(blob), err, size)
		}
	})
	if got != wantGet {
		t.Errorf("Get: got %d round trips, want %d", got, wantGet)
	}
}

// A sidecar whose clock is far from the server's puts all the same, and in one round trip from then on.
func TestAClockThatIsWrongIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, ahead := range []time.Duration{-time.Hour, time.Hour} {
		s, count := openCounted(t, Options{Addrs: []string{server.Addr}, Prefix: ahead.String()})
		countTrips(t, s, count, 1000, 1, 1)
		s.clock.ahead.Add(ahead.Microseconds())
		s.clock.last.Store(0)
		for i, want := range []bool{false, true} {
			key := store.Key{Tenant: "globex", Object: storetest.Object(string(rune('a' + i)))}
			n := count(func() {
				if err := s.Put(t.Context(), key, storetest.Blob(1, 1000), store.PutOptions{}); err != nil {
					t.Errorf("Put: got %v, want nil", err)
				}
			})
			if (n == 1) != want {
				t.Errorf("put %d with a clock that is %v ahead: got %d round trips", i, ahead, n)
			}
			if _, err := s.Get(t.Context(), key); err != nil {
				t.Errorf("Get: got %v, want nil", err)
			}
		}
		if n, b, err := s.Usage(t.Context(), "globex"); n != 2 || b != 2000 || err != nil {
			t.Errorf("Usage: got %d objects of %d bytes, %v, want 2 of 2000", n, b, err)
		}
	}
}

// A put that fails because its answer was lost takes nothing back that is committed: another sender may have been told that it is
// there. What was not committed goes, with its place in the account.
func TestWhatIsCommittedIsNotGivenUp(t *testing.T) {
	t.Parallel()
	s, _ := openCounted(t, Options{Addrs: []string{redistest.Start(t).Addr}, TileBytes: 20 << 10})
	for name, size := range map[string]int{"in the manifest": 1000, "three tiles": 50 << 10} {
		key := store.Key{Tenant: "acme", Object: storetest.Object(name)}
		p := &putting{Store: s, key: key, object: s.keys.object(key), blob: storetest.Blob(1, size)}
		if err := p.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !p.giveUp(t.Context()) {
			t.Errorf("%s: got given up, want committed", name)
		}
		if got, err := s.Get(t.Context(), key); err != nil || len(got) != size {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, size)
		}
	}
	key := store.Key{Tenant: "globex", Object: storetest.Object("a")}
	r, err := s.reserve(t.Context(), &key, 1000, store.PutOptions{}, false, "")
	if err != nil {
		t.Fatal(err)
	}
	p := &putting{Store: s, key: key, object: s.keys.object(key), m: manifest{version: token(), seq: r.seq, size: 1000, tile: 512}}
	if p.giveUp(t.Context()) {
		t.Error("of what was only reserved: got committed, want given up")
	}
	if n, b, err := s.Usage(t.Context(), "globex"); n != 0 || b != 0 || err != nil {
		t.Errorf("Usage: got %d objects of %d bytes, %v, want none", n, b, err)
	}
}

// What a sidecar before wrote, whose objects of one tile had it beside the manifest, is read, replaced and removed.
func TestObjectsOfOlderSidecarsAreRead(t *testing.T) {
	t.Parallel()
	s, _ := openCounted(t, Options{Addrs: []string{redistest.Start(t).Addr}})
	for name, then := range map[string]func(store.Key) error{
		"and replaced": func(k store.Key) error { return s.Put(t.Context(), k, storetest.Blob(2, 70_000), store.PutOptions{}) },
		"and removed":  func(k store.Key) error { return s.Delete(t.Context(), k) },
	} {
		t.Run(name, func(t *testing.T) {
			key := store.Key{Tenant: "acme", Object: storetest.Object(name)}
			object, blob := s.keys.object(key), storetest.Blob(1, 70_000)
			r, err := s.reserve(t.Context(), &key, int64(len(blob)), store.PutOptions{}, false, "")
			if err != nil {
				t.Fatal(err)
			}
			m := manifest{version: token(), seq: r.seq, size: int64(len(blob)), tile: maxTileBytes, kind: CRC32C, created: 1}
			m.sums = m.ofAll(blob)
			if err := s.client.Set(t.Context(), tileKey(object, m.version, 0), blob, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.client.HSet(t.Context(), manifestKey(object), m.values(object)...).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(t.Context(), key); err != nil || string(got) != string(blob) {
				t.Fatalf("Get: got %d bytes, %v, want the object", len(got), err)
			}
			if err := then(key); err != nil {
				t.Fatalf("then: got %v, want nil", err)
			}
			if n := s.client.Exists(t.Context(), tileKey(object, m.version, 0)).Val(); n != 0 {
				t.Error("the old tile is left")
			}
		})
	}
}
