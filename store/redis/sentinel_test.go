package redis_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
)

// When the master dies, the replica that the sentinels choose is used, and what it has is read.
func TestSentinelsNameTheMaster(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", fmt.Sprintf("127.0.0.1 %d", master.Port()))
	sentinel := redistest.StartSentinel(t, "kv", master)
	raw, watcher := master.Client(t), sentinel.Client(t)
	redistest.Eventually(t, "the sentinel knows the replica", func() bool {
		info, err := watcher.Info(t.Context(), "sentinel").Result()
		return err == nil && strings.Contains(info, "slaves=1")
	})
	s := open(t, redis.Options{Addrs: []string{sentinel.Addr}, Master: "kv"})
	put(t, s, testKey("a"), content, store.PutOptions{})
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping: got %v, want nil", err)
	}
	if n, err := raw.Wait(t.Context(), 1, 10_000_000_000).Result(); n != 1 || err != nil {
		t.Fatalf("the replica has it: got %d, %v, want 1", n, err)
	}
	master.Kill()
	redistest.Eventually(t, "the replica is used", func() bool {
		return s.Put(t.Context(), testKey("b"), content, store.PutOptions{}) == nil
	})
	if blob, err := s.Get(t.Context(), testKey("a")); err != nil || !bytes.Equal(blob, content) {
		t.Errorf("Get: got %d bytes, %v, want those that were put before", len(blob), err)
	}
	if role := replica.Client(t).Do(t.Context(), "ROLE").Val(); !strings.Contains(fmt.Sprint(role), "master") {
		t.Errorf("role of the replica: got %v, want master", role)
	}
}
