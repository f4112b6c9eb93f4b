package redis_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// wraps are the ways in which a store is used: alone, behind memory, encrypted, and all of it.
var wraps = map[string]struct {
	overhead int64
	over     func(t *testing.T, s store.Store, keys string) store.Store
}{
	"alone":   {0, func(_ *testing.T, s store.Store, _ string) store.Store { return s }},
	"layered": {0, func(t *testing.T, s store.Store, _ string) store.Store { return layered(t, s) }},
	"sealed":  {105, func(t *testing.T, s store.Store, keys string) store.Store { return sealed(t, s, keys) }},
	"both":    {105, func(t *testing.T, s store.Store, keys string) store.Store { return layered(t, sealed(t, s, keys)) }},
}

func TestStandaloneConforms(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name := range wraps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, server.Client(t), name, redis.Options{Addrs: []string{server.Addr}, TileBytes: 512})
		})
	}
	t.Run("sha256", func(t *testing.T) {
		t.Parallel()
		conform(t, server.Client(t), "alone", redis.Options{Addrs: []string{server.Addr}, TileBytes: 512, Sum: redis.SHA256})
	})
}

func TestClusterConforms(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	for _, name := range []string{"alone", "both"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, cluster.Client(t), name, redis.Options{Addrs: cluster.Addrs(), TileBytes: 512})
		})
	}
}

// conform runs the suite, each test under a prefix of its own.
func conform(t *testing.T, raw goredis.UniversalClient, wrap string, opt redis.Options) {
	keys := storetest.Keys(t, map[string]string{"k1": "0123456789abcdef0123456789abcdef"}, "* k1\n")
	n := 0
	storetest.Run(t, func(t *testing.T, _ storetest.Options) storetest.Harness {
		n++
		opt := opt
		opt.Prefix = fmt.Sprintf("test-%d-%s-%s:", n, wrap, opt.Sum)
		s := wraps[wrap].over(t, open(t, opt), keys)
		return storetest.Harness{
			Store: s, NoTotal: true, Overhead: wraps[wrap].overhead,
			Advance: time.Sleep, // Redis's clock cannot be set
			Reopen: func(t *testing.T) storetest.Store {
				if err := s.Close(); err != nil {
					t.Fatalf("Close: got %v, want nil", err)
				}
				return wraps[wrap].over(t, open(t, opt), keys)
			},
			Damage: func(t *testing.T, key store.Key) {
				flipBit(t, raw, tileOf(t, raw, opt.Prefix, key, 1), 77)
			},
		}
	})
}

func layered(t *testing.T, below store.Store) *store.Layered {
	t.Helper()
	s, err := store.NewLayered(below, store.LayeredOptions{MemoryBytes: 1 << 20})
	if err != nil {
		t.Fatalf("NewLayered: got %v, want nil", err)
	}
	return s
}

func sealed(t *testing.T, below store.Store, dir string) *store.Sealed {
	t.Helper()
	keys, err := store.OpenKeyring(dir, nil)
	if err != nil {
		t.Fatalf("OpenKeyring: got %v, want nil", err)
	}
	return store.NewSealed(below, keys)
}

func open(t testing.TB, opt redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(opt)
	if err != nil {
		t.Fatalf("Open: got %v, want nil", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// base is what all keys of an object start with, for tenants whose name is harmless.
func base(prefix string, key store.Key) string {
	return prefix + "{" + key.Tenant + ":" + key.Object + "}"
}

// tileOf is the key of a tile of the object's current version.
func tileOf(t testing.TB, raw goredis.UniversalClient, prefix string, key store.Key, i int) string {
	t.Helper()
	version, err := raw.HGet(t.Context(), base(prefix, key)+":m", "version").Result()
	if err != nil {
		t.Fatalf("manifest: got %v, want nil", err)
	}
	return fmt.Sprintf("%s:%s:%d", base(prefix, key), version, i)
}

// flipBit changes one bit of a value.
func flipBit(t testing.TB, raw goredis.UniversalClient, key string, bit int64) {
	t.Helper()
	old, err := raw.GetBit(t.Context(), key, bit).Result()
	if err == nil {
		err = raw.SetBit(t.Context(), key, bit, 1-int(old)).Err()
	}
	if err != nil {
		t.Fatalf("flip a bit: %v", err)
	}
}

func testKey(name string) store.Key { return store.Key{Tenant: "acme", Object: storetest.Object(name)} }

func put(t testing.TB, s store.Store, key store.Key, blob []byte, opt store.PutOptions) {
	t.Helper()
	if err := s.Put(context.WithoutCancel(t.Context()), key, blob, opt); err != nil {
		t.Fatalf("Put: got %v, want nil", err)
	}
}
