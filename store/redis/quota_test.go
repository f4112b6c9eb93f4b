package redis_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// Where account and object are put by one script, the account never says more than the quota, whoever asks and whenever, and at the
// end it is what is stored.
func TestTheAccountNeverExceedsTheQuota(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	raw := server.Client(t)
	const writers, each, quota = 4, 60, 20_000
	stores := make([]*redis.Store, writers)
	for i := range stores {
		stores[i] = open(t, redis.Options{Addrs: []string{server.Addr}, TileBytes: 1024, SweepEvery: -1})
	}
	var group sync.WaitGroup
	for w, s := range stores {
		group.Go(func() {
			for i := range each {
				key := testKey(fmt.Sprint(i % 40)) // the writers meet at the same objects
				size := 100 + (w*each+i)*37%4000
				if err := s.Put(t.Context(), key, storetest.Blob(uint64(w*each+i), size), store.PutOptions{Quota: quota}); err != nil {
					t.Errorf("Put: got %v, want nil", err)
				}
				if _, b, err := s.Usage(t.Context(), "acme"); err != nil || b > quota {
					t.Errorf("Usage: got %d bytes, %v, want at most %d", b, err, quota)
				}
			}
		})
	}
	group.Wait()
	redistest.Eventually(t, "the account is what is stored", func() bool {
		must(t, stores[0].Sweep(t.Context()))
		n, b, err := stores[0].Usage(t.Context(), "acme")
		must(t, err)
		var bytes int64
		manifests := keysLike(t, raw, "{acme:*}:m")
		for _, m := range manifests {
			size, err := raw.HGet(t.Context(), m, "size").Int64()
			must(t, err)
			bytes += size
		}
		return n == len(manifests) && b == bytes && b <= quota
	})
}
