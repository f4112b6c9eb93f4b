package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/store"
)

func expiry(t *testing.T, h Harness) {
	put(t, h.Store, key("acme", "short"), Blob(1, 100), store.PutOptions{TTL: unit})
	put(t, h.Store, key("acme", "long"), Blob(2, 200), store.PutOptions{TTL: time.Hour})
	put(t, h.Store, key("acme", "forever"), Blob(3, 300), store.PutOptions{})
	h.Advance(unit + unit/3)
	wantMissing(t, h.Store, key("acme", "short"))
	wantBlob(t, h.Store, key("acme", "long"), Blob(2, 200))
	wantBlob(t, h.Store, key("acme", "forever"), Blob(3, 300))
	wantUsage(t, h, "acme", 2, 500)
	put(t, h.Store, key("acme", "short"), Blob(1, 100), store.PutOptions{TTL: time.Hour})
	wantBlob(t, h.Store, key("acme", "short"), Blob(1, 100))
}

func remove(t *testing.T, h Harness) {
	k := key("acme", "a")
	put(t, h.Store, k, Blob(1, 100), store.PutOptions{})
	for range 2 {
		if err := h.Store.Delete(t.Context(), k); err != nil {
			t.Fatalf("Delete: got %v, want nil", err)
		}
		wantMissing(t, h.Store, k)
	}
	wantUsage(t, h, "acme", 0, 0)
	put(t, h.Store, k, Blob(1, 100), store.PutOptions{})
	wantBlob(t, h.Store, k, Blob(1, 100))
}

func quota(t *testing.T, h Harness) {
	opt := store.PutOptions{Quota: 100 + 2*h.Overhead}
	put(t, h.Store, key("globex", "older"), Blob(9, 90), opt)
	put(t, h.Store, key("acme", "1"), Blob(1, 40), opt)
	put(t, h.Store, key("acme", "2"), Blob(2, 40), opt)
	put(t, h.Store, key("acme", "3"), Blob(3, 40), opt)
	wantMissing(t, h.Store, key("acme", "1"))
	wantBlob(t, h.Store, key("acme", "2"), Blob(2, 40))
	wantBlob(t, h.Store, key("acme", "3"), Blob(3, 40))
	put(t, h.Store, key("acme", "4"), Blob(4, 100), opt)
	wantUsage(t, h, "acme", 1, 100)
	wantBlob(t, h.Store, key("acme", "4"), Blob(4, 100))
	wantBlob(t, h.Store, key("globex", "older"), Blob(9, 90))
}

func tooLargeForQuota(t *testing.T, h Harness) {
	opt := store.PutOptions{Quota: 100 + h.Overhead}
	put(t, h.Store, key("acme", "1"), Blob(1, 60), opt)
	err := h.Store.Put(t.Context(), key("acme", "2"), Blob(2, 101), opt)
	if !errors.Is(err, store.ErrTooLarge) {
		t.Fatalf("Put: got %v, want %v", err, store.ErrTooLarge)
	}
	wantCode(t, err, codes.StoreTooLarge)
	wantMissing(t, h.Store, key("acme", "2"))
	wantBlob(t, h.Store, key("acme", "1"), Blob(1, 60))
}

func totalLimit(t *testing.T, h Harness) {
	if h.NoTotal {
		t.Skip("this store has no total limit, by design")
	}
	put(t, h.Store, key("acme", "1"), Blob(1, 40), store.PutOptions{})
	put(t, h.Store, key("globex", "1"), Blob(2, 40), store.PutOptions{})
	put(t, h.Store, key("initech", "1"), Blob(3, 40), store.PutOptions{})
	wantMissing(t, h.Store, key("acme", "1"))
	wantBlob(t, h.Store, key("globex", "1"), Blob(2, 40))
	wantBlob(t, h.Store, key("initech", "1"), Blob(3, 40))
	wantUsage(t, h, "acme", 0, 0)
}

func tooLargeForAll(t *testing.T, h Harness) {
	if h.NoTotal {
		t.Skip("this store has no total limit, by design")
	}
	err := h.Store.Put(t.Context(), key("acme", "1"), Blob(1, 101+int(h.Overhead)), store.PutOptions{})
	wantCode(t, err, codes.StoreTooLarge)
	put(t, h.Store, key("acme", "1"), Blob(1, 100), store.PutOptions{})
}

func closed(t *testing.T, h Harness) {
	k := key("acme", "a")
	put(t, h.Store, k, Blob(1, 100), store.PutOptions{})
	if err := h.Store.Close(); err != nil {
		t.Fatalf("Close: got %v, want nil", err)
	}
	err := h.Store.Put(t.Context(), k, Blob(1, 100), store.PutOptions{})
	if !errors.Is(err, store.ErrClosed) {
		t.Fatalf("Put: got %v, want %v", err, store.ErrClosed)
	}
	wantCode(t, err, codes.StoreAway)
	if _, err := h.Store.Get(t.Context(), k); !errors.Is(err, store.ErrClosed) {
		t.Fatalf("Get: got %v, want %v", err, store.ErrClosed)
	}
}

func reopen(t *testing.T, h Harness) {
	if h.Reopen == nil {
		t.Skip("this store does not outlive its process, by design")
	}
	put(t, h.Store, key("acme", "a"), Blob(1, 1000), store.PutOptions{})
	put(t, h.Store, key("acme", "a"), Blob(2, 1001), store.PutOptions{})
	put(t, h.Store, key("AC/ME", "b"), Blob(3, 1002), store.PutOptions{TTL: time.Hour})
	put(t, h.Store, key("acme", "short"), Blob(4, 10), store.PutOptions{TTL: unit})
	put(t, h.Store, key("acme", "deleted"), Blob(5, 10), store.PutOptions{})
	if err := h.Store.Delete(t.Context(), key("acme", "deleted")); err != nil {
		t.Fatalf("Delete: got %v, want nil", err)
	}
	before, err := h.Store.Stat(t.Context(), key("AC/ME", "b"))
	if err != nil {
		t.Fatalf("Stat: got %v, want nil", err)
	}
	h.Advance(unit + unit/3)
	s := h.Reopen(t)
	t.Cleanup(func() { _ = s.Close() })
	h.Store = s
	wantBlob(t, s, key("acme", "a"), Blob(2, 1001))
	wantBlob(t, s, key("AC/ME", "b"), Blob(3, 1002))
	wantMissing(t, s, key("acme", "short"))
	wantMissing(t, s, key("acme", "deleted"))
	wantUsage(t, h, "acme", 1, 1001)
	wantUsage(t, h, "AC/ME", 1, 1002)
	after, err := s.Stat(t.Context(), key("AC/ME", "b"))
	if err != nil || !after.Created.Equal(before.Created) || !after.Expires.Equal(before.Expires) {
		t.Fatalf("Stat after reopening: got %v, %v, want %v", after, err, before)
	}
	put(t, s, key("acme", "a"), Blob(6, 1003), store.PutOptions{})
	wantBlob(t, s, key("acme", "a"), Blob(6, 1003))
	wantUsage(t, h, "acme", 1, 1003)
}

func damaged(t *testing.T, h Harness) {
	if h.Damage == nil {
		t.Skip("nothing outside the process can be damaged, by design")
	}
	k := key("acme", "a")
	put(t, h.Store, k, Blob(1, 1000), store.PutOptions{})
	h.Damage(t, k)
	wantMissing(t, h.Store, k)
	wantUsage(t, h, "acme", 0, 0)
	put(t, h.Store, k, Blob(1, 1000), store.PutOptions{})
	wantBlob(t, h.Store, k, Blob(1, 1000))
}
