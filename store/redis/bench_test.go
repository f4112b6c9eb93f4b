package redis_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// ballast stands for the pages and the cache that a sidecar holds: with an empty heap the collector would run all the time.
var ballast []byte

// How far is an accounted, checked object from the same tiles by the raw client, in the same run? Every object is a new
// one and lives for a second; raw reads go into one buffer that is used again.
func BenchmarkStore(b *testing.B) {
	server := redistest.Start(b)
	raw := goredis.NewClient(&goredis.Options{Addr: server.Addr, DisableIdentity: true})
	b.Cleanup(func() { _ = raw.Close() })
	ballast = make([]byte, 128<<20)
	const tile, life = 1 << 20, time.Second
	stores := map[redis.Sum]*redis.Store{}
	kinds := []redis.Sum{redis.SHA256, redis.CRC32C}
	for _, kind := range kinds {
		stores[kind] = open(b, redis.Options{Addrs: []string{server.Addr}, Sum: kind, Prefix: string(kind)})
	}
	key := func(stream, i int) store.Key {
		return store.Key{Tenant: "acme", Object: fmt.Sprintf("%08x%08x", stream, i)}
	}
	for _, size := range []int{64 << 10, 1 << 20, 8 << 20} {
		blob := storetest.Blob(1, size)
		name := func(op, by string) string { return fmt.Sprintf("op=%s/size=%dKiB/by=%s", op, size>>10, by) }
		b.Run(name("put", "raw"), func(b *testing.B) {
			streams(b, size, func(stream, i int, buf []byte) error {
				binary.LittleEndian.PutUint64(buf, uint64(i))
				for at := 0; at < size; at += tile {
					if err := raw.Set(b.Context(), fmt.Sprint("raw", stream, i, at), buf[at:min(at+tile, size)], life).Err(); err != nil {
						return err
					}
				}
				return nil
			})
		})
		for _, kind := range kinds {
			b.Run(name("put", string(kind)), func(b *testing.B) {
				streams(b, size, func(stream, i int, buf []byte) error {
					binary.LittleEndian.PutUint64(buf, uint64(i))
					return stores[kind].Put(b.Context(), key(stream, i), buf, store.PutOptions{TTL: life})
				})
			})
		}
		for at := 0; at < size; at += tile {
			raw.Set(b.Context(), fmt.Sprint("raw", at), blob[at:min(at+tile, size)], 0)
		}
		b.Run(name("get", "raw"), func(b *testing.B) {
			streams(b, size, func(_, _ int, buf []byte) error {
				for at := 0; at < size; at += tile {
					if err := raw.GetToBuffer(b.Context(), fmt.Sprint("raw", at), buf[at:min(at+tile, size)]).Err(); err != nil {
						return err
					}
				}
				return nil
			})
		})
		b.Run(name("get", "raw_fresh_buffer"), func(b *testing.B) {
			streams(b, size, func(_, _ int, _ []byte) error {
				buf := make([]byte, size)
				for at := 0; at < size; at += tile {
					if err := raw.GetToBuffer(b.Context(), fmt.Sprint("raw", at), buf[at:min(at+tile, size)]).Err(); err != nil {
						return err
					}
				}
				return nil
			})
		})
		for _, kind := range kinds {
			put(b, stores[kind], testKey("a"), blob, store.PutOptions{})
			b.Run(name("get", string(kind)), func(b *testing.B) {
				streams(b, size, func(_, _ int, _ []byte) error {
					_, err := stores[kind].Get(b.Context(), testKey("a"))
					return err
				})
			})
		}
	}
}

var stream atomic.Int64

// streams runs f from two goroutines, as a small sidecar's workers would.
func streams(b *testing.B, size int, f func(stream, i int, buf []byte) error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		me, buf := int(stream.Add(1)), make([]byte, size)
		for i := 0; pb.Next(); i++ {
			if err := f(me, i, buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
