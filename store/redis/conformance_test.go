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

func TestStandaloneConforms(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, sum := range []redis.Sum{redis.SHA256, redis.CRC32C} {
		t.Run(string(sum), func(t *testing.T) {
			conform(t, server.Client(t), redis.Options{Addrs: []string{server.Addr}, TileBytes: 512, Sum: sum})
		})
	}
}

func TestClusterConforms(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	conform(t, cluster.Client(t), redis.Options{Addrs: cluster.Addrs(), TileBytes: 512})
}

// conform runs the suite, each test under a prefix of its own.
func conform(t *testing.T, raw goredis.UniversalClient, opt redis.Options) {
	n := 0
	storetest.Run(t, func(t *testing.T, _ storetest.Options) storetest.Harness {
		n++
		opt := opt
		opt.Prefix = fmt.Sprintf("test-%d-%s:", n, opt.Sum)
		s := open(t, opt)
		return storetest.Harness{
			Store: s, NoTotal: true,
			Advance: time.Sleep, // Redis's clock cannot be set
			Reopen: func(t *testing.T) storetest.Store {
				if err := s.Close(); err != nil {
					t.Fatalf("Close: got %v, want nil", err)
				}
				return open(t, opt)
			},
			Damage: func(t *testing.T, key store.Key) {
				flipBit(t, raw, tileOf(t, raw, opt.Prefix, key, 1), 77)
			},
		}
	})
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
