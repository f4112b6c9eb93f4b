package redis_test

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// What a process leaves behind that dies between two steps, and what a server loses, is put right.
func TestTheSweepRepairs(t *testing.T) {
	t.Parallel()
	t.Run("standalone", func(t *testing.T) {
		server := redistest.Start(t)
		sweepRepairs(t, server.Client(t), []string{server.Addr})
	})
	t.Run("cluster", func(t *testing.T) {
		cluster := redistest.StartCluster(t)
		sweepRepairs(t, cluster.Client(t), cluster.Addrs())
	})
}

func sweepRepairs(t *testing.T, raw goredis.UniversalClient, addrs []string) {
	ctx := t.Context()
	for _, c := range []struct {
		name    string
		harm    func(t *testing.T, s *redis.Store, prefix string, k store.Key)
		objects int
		there   bool // the object is to be read after the sweep
		keys    int  // that are left of the object
	}{
		{"nothing when nothing is wrong", func(*testing.T, *redis.Store, string, store.Key) {}, 1, true, 4},
		{"an account that names an object that is not stored", func(t *testing.T, _ *redis.Store, prefix string, k store.Key) {
			deleteAll(t, raw, base(prefix, k)+":*")
		}, 0, false, 0},
		{"an object that its account has lost", func(t *testing.T, _ *redis.Store, prefix string, _ store.Key) {
			deleteAll(t, raw, prefix+"{acme}:*")
		}, 1, true, 4},
		{"tiles whose manifest is lost", func(t *testing.T, _ *redis.Store, prefix string, k store.Key) {
			deleteAll(t, raw, base(prefix, k)+":m")
		}, 0, false, 0},
		{"an object that was chosen to go, by a process that died then", func(t *testing.T, _ *redis.Store, prefix string, k store.Key) {
			entry := raw.HGet(ctx, prefix+"{acme}:objects", k.Object).Val()
			deleteAll(t, raw, prefix+"{acme}:objects")
			deleteAll(t, raw, prefix+"{acme}:age")
			raw.HSet(ctx, prefix+"{acme}:doomed", k.Object, entry[len("1500 "):])
			raw.HSet(ctx, prefix+"{acme}:account", "bytes", 0)
		}, 0, false, 0},
		{"a manifest that is nonsense is left to whoever reads it", func(_ *testing.T, _ *redis.Store, prefix string, k store.Key) {
			raw.HSet(ctx, base(prefix, k)+":m", "size", "many")
		}, 1, false, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			prefix := t.Name() + "*["
			s := open(t, redis.Options{Addrs: addrs, Prefix: prefix, TileBytes: 512, Staging: 400 * time.Millisecond, SweepEvery: -1})
			put(t, s, testKey("a"), storetest.Blob(1, 1500), store.PutOptions{})
			c.harm(t, s, prefix, testKey("a"))
			redistest.Eventually(t, "the sweep agrees", func() bool {
				if err := s.Sweep(ctx); err != nil {
					t.Fatalf("Sweep: got %v, want nil", err)
				}
				n, b, err := s.Usage(ctx, "acme")
				return err == nil && n == c.objects && b == int64(1500*c.objects)
			})
			if got := len(keysLike(t, raw, base(prefix, testKey("a"))+":*")); got != c.keys {
				t.Errorf("keys of the object: got %d, want %d", got, c.keys)
			}
			if _, err := s.Get(ctx, testKey("a")); (err == nil) != c.there {
				t.Errorf("Get: got %v, want found %v", err, c.there)
			}
		})
	}
}

// A sweeper of its own runs while the store is open, one per Redis, and ends with it.
func TestTheStoreSweepsByItself(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw := server.Client(t)
	for range 2 {
		open(t, redis.Options{Addrs: []string{server.Addr}, SweepEvery: 20 * time.Millisecond})
	}
	raw.HSet(t.Context(), "{acme}:objects", storetest.Object("lost"), "10 1")
	raw.HSet(t.Context(), "{acme}:account", "bytes", "10")
	redistest.Eventually(t, "the account is empty", func() bool { return raw.Exists(t.Context(), "{acme}:objects").Val() == 0 })
}

// keysLike lists the keys that match, over all masters.
func keysLike(t *testing.T, raw goredis.UniversalClient, pattern string) []string {
	t.Helper()
	escaped := ""
	for _, c := range pattern {
		if c == '[' || c == '\\' {
			escaped += `\`
		}
		escaped += string(c)
	}
	all, err := redistest.Keys(t.Context(), raw, escaped)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func deleteAll(t *testing.T, raw goredis.UniversalClient, pattern string) {
	t.Helper()
	for _, key := range keysLike(t, raw, pattern) {
		if err := raw.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
	}
}
