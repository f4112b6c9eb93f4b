package redis_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// Whatever became of an object's values, it is read as it was put or not at all.
func TestADamagedObjectIsAMissAndIsCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw, ctx, k := server.Client(t), t.Context(), testKey("a")
	tile := func(prefix string, i int) string { return tileOf(t, raw, prefix, k, i) }
	field := func(name string, value any) func(*testing.T, string) {
		return func(_ *testing.T, prefix string) { raw.HSet(ctx, base(prefix, k)+":m", name, value) }
	}
	for _, c := range []struct {
		name string
		harm func(t *testing.T, prefix string)
	}{
		{"a bit of the first tile", func(t *testing.T, prefix string) { flipBit(t, raw, tile(prefix, 0), 0) }},
		{"a bit of the last tile", func(t *testing.T, prefix string) { flipBit(t, raw, tile(prefix, 2), 475*8+7) }},
		{"a tile is gone", func(_ *testing.T, prefix string) { raw.Del(ctx, tile(prefix, 1)) }},
		{"a tile is shorter", func(_ *testing.T, prefix string) { raw.Set(ctx, tile(prefix, 1), "short", 0) }},
		{"a tile is longer", func(_ *testing.T, prefix string) { raw.Append(ctx, tile(prefix, 1), "more") }},
		{"a tile is no string", func(_ *testing.T, prefix string) {
			name := tile(prefix, 1)
			raw.Del(ctx, name)
			raw.LPush(ctx, name, "x")
		}},
		{"two tiles change places", func(_ *testing.T, prefix string) {
			a, b := tile(prefix, 0), tile(prefix, 1)
			raw.Rename(ctx, a, "x")
			raw.Rename(ctx, b, a)
			raw.Rename(ctx, "x", b)
		}},
		{"the size", field("size", 1499)},
		{"a negative size", field("size", -1)},
		{"a size that nobody has memory for", field("size", int64(1)<<60)},
		{"no tile size", field("tile", 0)},
		{"the kind of sum", field("kind", "sha256")},
		{"an unknown kind of sum", field("kind", "md5")},
		{"the sums", field("sums", "")},
		{"a number that is none", field("created", "yesterday")},
		{"the version", field("version", "0000000000000000")},
		{"a field is gone", func(_ *testing.T, prefix string) { raw.HDel(ctx, base(prefix, k)+":m", "check") }},
		{"the manifest is no hash", func(_ *testing.T, prefix string) { raw.Set(ctx, base(prefix, k)+":m", "x", 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			prefix := t.Name() + ":"
			s := open(t, redis.Options{Addrs: []string{server.Addr}, Prefix: prefix, TileBytes: 512})
			put(t, s, k, storetest.Blob(1, 1500), store.PutOptions{})
			c.harm(t, prefix)
			if blob, err := s.Get(ctx, k); !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("Get: got %d bytes, %v, want %v", len(blob), err, store.ErrNotFound)
			}
			if got := s.Stats(); got.Damaged != 1 || got.Misses != 1 {
				t.Errorf("Stats: got %d damaged, %d misses, want 1 and 1", got.Damaged, got.Misses)
			}
			if n, b, err := s.Usage(ctx, k.Tenant); n != 0 || b != 0 || err != nil {
				t.Errorf("Usage: got %d objects of %d bytes, %v, want none", n, b, err)
			}
			put(t, s, k, storetest.Blob(2, 1400), store.PutOptions{})
			if blob, err := s.Get(ctx, k); err != nil || len(blob) != 1400 {
				t.Errorf("Get after another Put: got %d bytes, %v, want 1400", len(blob), err)
			}
		})
	}
}

// And so it is where the object lies inside its manifest.
func TestADamagedSmallObjectIsAMissAndIsCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw, ctx, k := server.Client(t), t.Context(), testKey("a")
	for name, harm := range map[string]func(key string){
		"a bit": func(key string) {
			blob := raw.HGet(ctx, key, "blob").Val()
			raw.HSet(ctx, key, "blob", string(blob[0]^1)+blob[1:])
		},
		"gone":            func(key string) { raw.HDel(ctx, key, "blob") },
		"longer":          func(key string) { raw.HSet(ctx, key, "blob", raw.HGet(ctx, key, "blob").Val()+"x") },
		"said to be none": func(key string) { raw.HSet(ctx, key, "size", 0) },
		"tiles named":     func(key string) { raw.HSet(ctx, key, "tile", 512) },
	} {
		t.Run(name, func(t *testing.T) {
			prefix := t.Name() + ":"
			s := open(t, redis.Options{Addrs: []string{server.Addr}, Prefix: prefix})
			put(t, s, k, storetest.Blob(1, 500), store.PutOptions{})
			if keys := keysLike(t, raw, base(prefix, k)+":*"); len(keys) != 1 {
				t.Fatalf("keys of a small object: got %v, want the manifest alone", keys)
			}
			harm(base(prefix, k) + ":m")
			if blob, err := s.Get(ctx, k); !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("Get: got %d bytes, %v, want %v", len(blob), err, store.ErrNotFound)
			}
			if got := s.Stats(); got.Damaged != 1 {
				t.Errorf("Stats: got %d damaged, want 1", got.Damaged)
			}
			put(t, s, k, storetest.Blob(1, 500), store.PutOptions{})
			if blob, err := s.Get(ctx, k); err != nil || len(blob) != 500 {
				t.Errorf("Get after another Put: got %d bytes, %v, want 500", len(blob), err)
			}
		})
	}
}

// A manifest under another tenant's key is worth nothing.
func TestAMovedManifestIsAMiss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw, ctx := server.Client(t), t.Context()
	k, other := testKey("a"), store.Key{Tenant: "globex", Object: testKey("a").Object}
	s := open(t, redis.Options{Addrs: []string{server.Addr}, Prefix: "moved:", TileBytes: 512})
	put(t, s, k, storetest.Blob(1, 1500), store.PutOptions{})
	for _, key := range keysLike(t, raw, base("moved:", k)+":*") {
		if err := raw.Copy(ctx, key, base("moved:", other)+key[len(base("moved:", k)):], 0, false).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(ctx, other); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: got %v, want %v", err, store.ErrNotFound)
	}
}

// Objects are content-addressed, so a name can be guessed by whoever has the content; it opens nothing elsewhere.
func TestAGuessedNameOpensNothingOfAnotherTenant(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := open(t, redis.Options{Addrs: []string{server.Addr}})
	k := testKey("secret")
	put(t, s, k, storetest.Blob(1, 1000), store.PutOptions{})
	for _, tenant := range []string{
		"globex", "ACME", "acme ", "acme:" + k.Object, "{acme}", "acme}", "}{acme", "acme:", ":", "~acme", "*", "acme*", "?cme", "acme:" + k.Object + "}:m",
	} {
		guess := store.Key{Tenant: tenant, Object: k.Object}
		if _, err := s.Get(t.Context(), guess); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get as %q: got %v, want %v", tenant, err, store.ErrNotFound)
		}
		if _, err := s.Stat(t.Context(), guess); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Stat as %q: got %v, want %v", tenant, err, store.ErrNotFound)
		}
		if err := s.Delete(t.Context(), guess); err != nil {
			t.Errorf("Delete as %q: got %v, want nil", tenant, err)
		}
		if n, _, err := s.Usage(t.Context(), tenant); n != 0 || err != nil {
			t.Errorf("Usage of %q: got %d, %v, want 0", tenant, n, err)
		}
	}
	if _, err := s.Get(t.Context(), k); err != nil {
		t.Errorf("Get: got %v, want nil", err)
	}
}

// The quota holds for what is really stored, whoever puts at the same time.
func TestTheQuotaHoldsWhenManyPutAtOnce(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	raw := cluster.Client(t)
	const writers, each, size, quota = 6, 25, 3000, 30_000
	var group sync.WaitGroup
	for w := range writers {
		s := open(t, redis.Options{Addrs: cluster.Addrs(), TileBytes: 1024})
		group.Go(func() {
			for i := range each {
				key := testKey(fmt.Sprint(w, i))
				if err := s.Put(t.Context(), key, storetest.Blob(uint64(i), size), store.PutOptions{Quota: quota}); err != nil {
					t.Errorf("Put: got %v, want nil", err)
				}
			}
		})
	}
	group.Wait()
	s := open(t, redis.Options{Addrs: cluster.Addrs(), TileBytes: 1024})
	if err := s.Sweep(t.Context()); err != nil { // what two evicted at once may be left to it
		t.Fatalf("Sweep: got %v, want nil", err)
	}
	n, b, err := s.Usage(t.Context(), "acme")
	if err != nil || n != quota/size || b != quota {
		t.Errorf("Usage: got %d objects of %d bytes, %v, want %d of %d", n, b, err, quota/size, quota)
	}
	if got := len(keysLike(t, raw, "{acme:*}:m")); got != quota/size {
		t.Errorf("manifests: got %d, want %d", got, quota/size)
	}
	if got := len(keysLike(t, raw, "{acme:*}:*:*")); got != 3*quota/size {
		t.Errorf("tiles: got %d, want %d", got, 3*quota/size)
	}
}

// An object that expires leaves nothing: not its values, and not its place in the account.
func TestNothingIsLeftOfWhatExpired(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw := server.Client(t)
	s := open(t, redis.Options{Addrs: []string{server.Addr}})
	put(t, s, testKey("a"), storetest.Blob(1, 1000), store.PutOptions{TTL: 100 * time.Millisecond})
	for _, key := range keysLike(t, raw, "{acme:*") {
		if life := raw.PTTL(t.Context(), key).Val(); life <= 0 {
			t.Errorf("%s: got no expiry, want one", key)
		}
	}
	redistest.Eventually(t, "the manifest is gone", func() bool { return raw.Exists(t.Context(), base("", testKey("a"))+":m").Val() == 0 })
	if n, b, err := s.Usage(t.Context(), "acme"); n != 0 || b != 0 || err != nil {
		t.Errorf("Usage: got %d objects of %d bytes, %v, want none", n, b, err)
	}
	if got := keysLike(t, raw, "{acme}*"); len(got) != 0 {
		t.Errorf("keys of the account: got %v, want none", got)
	}
}
