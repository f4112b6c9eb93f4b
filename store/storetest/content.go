package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/store"
)

func putGetStat(t *testing.T, h Harness) {
	k, blob := key("acme", "a"), Blob(1, 70_000)
	put(t, h.Store, k, blob, store.PutOptions{TTL: time.Hour})
	wantBlob(t, h.Store, k, blob)
	wantBlob(t, h.Store, k, blob)
	info, err := h.Store.Stat(t.Context(), k)
	if err != nil {
		t.Fatalf("Stat: got %v, want nil", err)
	}
	if info.Size != int64(len(blob)) {
		t.Errorf("Size: got %d, want %d", info.Size, len(blob))
	}
	if got := info.Expires.Sub(info.Created); got != time.Hour {
		t.Errorf("life: got %v, want %v", got, time.Hour)
	}
	wantUsage(t, h, "acme", 1, int64(len(blob)))
}

func missing(t *testing.T, h Harness) {
	_, err := h.Store.Get(t.Context(), key("acme", "never"))
	wantCode(t, err, "not_found")
	wantMissing(t, h.Store, key("acme", "never"))
	wantUsage(t, h, "acme", 0, 0)
}

func empty(t *testing.T, h Harness) {
	put(t, h.Store, key("acme", "e"), nil, store.PutOptions{})
	wantBlob(t, h.Store, key("acme", "e"), nil)
	wantUsage(t, h, "acme", 1, 0)
}

func callerKeepsBlob(t *testing.T, h Harness) {
	k, blob := key("acme", "a"), Blob(1, 1000)
	put(t, h.Store, k, blob, store.PutOptions{})
	clear(blob)
	wantBlob(t, h.Store, k, Blob(1, 1000))
}

func replace(t *testing.T, h Harness) {
	k := key("acme", "a")
	put(t, h.Store, k, Blob(1, 1000), store.PutOptions{})
	wantBlob(t, h.Store, k, Blob(1, 1000))
	put(t, h.Store, k, Blob(2, 500), store.PutOptions{})
	wantBlob(t, h.Store, k, Blob(2, 500))
	wantUsage(t, h, "acme", 1, 500)
}

func repeat(t *testing.T, h Harness) {
	k, blob := key("acme", "a"), Blob(1, 1000)
	for range 5 {
		put(t, h.Store, k, blob, store.PutOptions{TTL: time.Hour, Quota: 1000 + h.Overhead})
	}
	wantBlob(t, h.Store, k, blob)
	wantUsage(t, h, "acme", 1, 1000)
}

func repeatTTL(t *testing.T, h Harness) {
	k, blob := key("acme", "a"), Blob(1, 1000)
	// Where time is real, the machine may be busy: each look is three units before the end of a life.
	put(t, h.Store, k, blob, store.PutOptions{TTL: 6 * unit})
	put(t, h.Store, k, blob, store.PutOptions{TTL: unit})
	h.Advance(2 * unit)
	wantBlob(t, h.Store, k, blob)
	put(t, h.Store, k, blob, store.PutOptions{TTL: 8 * unit})
	h.Advance(5 * unit)
	wantBlob(t, h.Store, k, blob)
	put(t, h.Store, k, blob, store.PutOptions{})
	h.Advance(4 * unit)
	wantBlob(t, h.Store, k, blob)
	wantUsage(t, h, "acme", 1, 1000)
}

func tenants(t *testing.T, h Harness) {
	put(t, h.Store, key("acme", "a"), Blob(1, 100), store.PutOptions{})
	wantMissing(t, h.Store, key("globex", "a"))
	put(t, h.Store, key("globex", "a"), Blob(2, 200), store.PutOptions{})
	wantBlob(t, h.Store, key("acme", "a"), Blob(1, 100))
	wantBlob(t, h.Store, key("globex", "a"), Blob(2, 200))
	wantUsage(t, h, "acme", 1, 100)
	wantUsage(t, h, "globex", 1, 200)
}

func hostileTenants(t *testing.T, h Harness) {
	names := []string{
		"..", ".", "/", "../../etc", "a/b", "a\\b", "a\x00b", "ACME", "acme", "AcMe", "t-acme", "h-acme", "con", "{acme}", "acme:*",
		" ", "\n", "ж", "\xff\xfe", "-rf", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("é", 64),
	}
	for i, name := range names {
		put(t, h.Store, key(name, "a"), Blob(uint64(i), 100+i), store.PutOptions{})
	}
	for i, name := range names {
		wantBlob(t, h.Store, key(name, "a"), Blob(uint64(i), 100+i))
		wantUsage(t, h, name, 1, int64(100+i))
	}
}

func badKeys(t *testing.T, h Harness) {
	good := Object("a")
	for name, k := range map[string]store.Key{
		"no tenant":         {Tenant: "", Object: good},
		"tenant too long":   {Tenant: strings.Repeat("x", 129), Object: good},
		"no object":         {Tenant: "acme"},
		"object too short":  {Tenant: "acme", Object: "abc"},
		"object too long":   {Tenant: "acme", Object: strings.Repeat("a", 129)},
		"upper-case object": {Tenant: "acme", Object: strings.ToUpper(good)},
		"path as object":    {Tenant: "acme", Object: "../../../aaaa"},
		"glob as object":    {Tenant: "acme", Object: "aaaaaaaa*"},
	} {
		_, getErr := h.Store.Get(t.Context(), k)
		_, statErr := h.Store.Stat(t.Context(), k)
		for op, err := range map[string]error{
			"Put": h.Store.Put(t.Context(), k, []byte("x"), store.PutOptions{}), "Get": getErr, "Stat": statErr, "Delete": h.Store.Delete(t.Context(), k),
		} {
			if !errors.Is(err, store.ErrBadKey) {
				t.Errorf("%s with %s: got %v, want %v", op, name, err, store.ErrBadKey)
				continue
			}
			wantCode(t, err, codes.StoreBadKey)
		}
	}
}

func cancelled(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := key("acme", "a")
	if err := h.Store.Put(ctx, k, Blob(1, 100), store.PutOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Put: got %v, want %v", err, context.Canceled)
	}
	wantMissing(t, h.Store, k)
}

// concurrent: every goroutine works on keys that the others use too; a reader sees whole content or nothing.
func concurrent(t *testing.T, h Harness) {
	const workers, rounds, keys = 8, 60, 5
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for r := range rounds {
				n := (w + r) % keys
				k := key("acme", fmt.Sprint(n))
				switch r % 4 {
				case 0, 1:
					if err := h.Store.Put(t.Context(), k, Blob(uint64(n), 3000+n), store.PutOptions{}); err != nil {
						t.Errorf("Put: got %v, want nil", err)
					}
				case 2:
					got, err := h.Store.Get(t.Context(), k)
					if err != nil && !errors.Is(err, store.ErrNotFound) {
						t.Errorf("Get: got %v, want the content or %v", err, store.ErrNotFound)
					}
					if err == nil && !bytes.Equal(got, Blob(uint64(n), 3000+n)) {
						t.Errorf("Get: got other content than any put")
					}
				case 3:
					if w%4 == 0 {
						if err := h.Store.Delete(t.Context(), k); err != nil {
							t.Errorf("Delete: got %v, want nil", err)
						}
					}
				}
			}
		})
	}
	group.Wait()
	var total int64
	for n := range keys {
		put(t, h.Store, key("acme", fmt.Sprint(n)), Blob(uint64(n), 3000+n), store.PutOptions{})
		wantBlob(t, h.Store, key("acme", fmt.Sprint(n)), Blob(uint64(n), 3000+n))
		total += int64(3000 + n)
	}
	wantUsage(t, h, "acme", keys, total)
}
