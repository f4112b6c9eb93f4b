package redis_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
)

// Two sidecars over one Redis: what one has in memory is never older than what the other did.
func TestMemoryIsNeverBehindAnotherSidecar(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := layered(t, open(t, redis.Options{Addrs: []string{server.Addr}}))
	b := layered(t, open(t, redis.Options{Addrs: []string{server.Addr}}))
	k := testKey("a")
	want := func(s store.Store, blob []byte) {
		t.Helper()
		got, err := s.Get(t.Context(), k)
		if blob == nil {
			if !errors.Is(err, store.ErrNotFound) {
				t.Fatalf("Get: got %d bytes, %v, want %v", len(got), err, store.ErrNotFound)
			}
		} else if err != nil || !bytes.Equal(got, blob) {
			t.Fatalf("Get: got %d bytes, %v, want %d", len(got), err, len(blob))
		}
	}
	first, second := storetest.Blob(1, 1000), storetest.Blob(2, 1000)
	put(t, a, k, first, store.PutOptions{})
	want(a, first)
	want(b, first)
	want(a, first)
	if got := a.Stats().MemoryHits; got != 1 {
		t.Errorf("MemoryHits: got %d, want 1", got)
	}
	put(t, b, k, second, store.PutOptions{})
	want(a, second)
	if err := b.Delete(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	want(a, nil)
	put(t, b, k, first, store.PutOptions{TTL: 150 * time.Millisecond})
	want(a, first)
	redistest.Eventually(t, "it has expired", func() bool { _, err := a.Get(t.Context(), k); return errors.Is(err, store.ErrNotFound) })
	put(t, a, k, first, store.PutOptions{Quota: 1000})
	want(a, first)
	put(t, b, testKey("b"), second, store.PutOptions{Quota: 1000}) // evicts it
	want(a, nil)
}

// While Redis is away, what is in memory is served until it expires; what is put is refused, or kept in memory where
// Redis is optional.
func TestMemoryServesWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	for _, optional := range []bool{false, true} {
		server := redistest.Start(t)
		below := open(t, redis.Options{Addrs: []string{server.Addr}, Breaker: redis.BreakerOptions{Failures: 1, Pause: time.Millisecond, MaxPause: 20 * time.Millisecond}})
		s, err := store.NewLayered(below, store.LayeredOptions{Optional: optional})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, testKey("known"), content, store.PutOptions{})
		put(t, s, testKey("short"), content, store.PutOptions{TTL: 200 * time.Millisecond})
		put(t, s, testKey("unread"), content, store.PutOptions{})
		for _, name := range []string{"known", "short"} {
			if _, err := s.Get(t.Context(), testKey(name)); err != nil {
				t.Fatalf("Get of %s: got %v, want nil", name, err)
			}
		}
		server.Kill()
		get := func(name string) error { _, err := s.Get(t.Context(), testKey(name)); return err }
		if err := get("known"); err != nil {
			t.Errorf("Get of what is in memory: got %v, want nil", err)
		}
		if _, err := s.Stat(t.Context(), testKey("known")); err != nil {
			t.Errorf("Stat of what is in memory: got %v, want nil", err)
		}
		if err := get("unread"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Get of what is not: got %v, want %v", err, store.ErrUnavailable)
		}
		redistest.Eventually(t, "it expires in memory too", func() bool { return errors.Is(get("short"), store.ErrUnavailable) })
		err = s.Put(t.Context(), testKey("late"), content, store.PutOptions{})
		if optional != (err == nil) || !optional && !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Put, optional %v: got %v", optional, err)
		}
		if err := get("late"); optional != (err == nil) {
			t.Errorf("Get of what was put meanwhile, optional %v: got %v", optional, err)
		}
		server.Restart(t)
		redistest.Eventually(t, "redis is back", func() bool { return below.Ping(t.Context()) == nil })
		if err := get("known"); !errors.Is(err, store.ErrNotFound) { // this server keeps nothing on disk
			t.Errorf("Get of what Redis has lost: got %v, want %v", err, store.ErrNotFound)
		}
		if err := get("late"); optional != (err == nil) {
			t.Errorf("Get of what only memory has, optional %v: got %v", optional, err)
		}
		if got := s.Stats(); got.AwayHits == 0 || optional != (got.Kept == 1) {
			t.Errorf("Stats: got %+v", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

var content = storetest.Blob(7, 1000)
