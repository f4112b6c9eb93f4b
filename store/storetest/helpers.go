package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/semproxy/semproxy/store"
)

// Object makes a digest from a readable name.
func Object(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// Blob makes n bytes that look like nothing and are the same for the same seed.
func Blob(seed uint64, n int) []byte {
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
	blob := make([]byte, n)
	_, _ = src.Read(blob)
	return blob
}

// Keys makes a folder of encryption keys, each of 32 bytes, and the file that names the tenants.
func Keys(t testing.TB, keys map[string]string, tenants string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"tenants": tenants}
	for id, key := range keys {
		files[id+".key"] = key
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func key(tenant, object string) store.Key { return store.Key{Tenant: tenant, Object: Object(object)} }

func put(t *testing.T, s Store, k store.Key, blob []byte, opt store.PutOptions) {
	t.Helper()
	if err := s.Put(t.Context(), k, blob, opt); err != nil {
		t.Fatalf("Put: got %v, want nil", err)
	}
}

func wantBlob(t *testing.T, s Store, k store.Key, want []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatalf("Get: got %v, want nil", err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("Get: got %d other bytes, want the %d that were put", len(got), len(want))
	}
}

func wantMissing(t *testing.T, s Store, k store.Key) {
	t.Helper()
	if _, err := s.Get(t.Context(), k); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Get: got %v, want %v", err, store.ErrNotFound)
	}
	if _, err := s.Stat(t.Context(), k); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("Stat: got %v, want %v", err, store.ErrNotFound)
	}
}

func wantUsage(t *testing.T, h Harness, tenant string, objects int, bytes int64) {
	t.Helper()
	bytes += int64(objects) * h.Overhead
	if n, b, err := h.Store.Usage(t.Context(), tenant); err != nil || n != objects || b != bytes {
		t.Fatalf("Usage(%q): got %d objects of %d bytes, %v, want %d of %d", tenant, n, b, err, objects, bytes)
	}
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	var coded interface{ Code() string }
	if !errors.As(err, &coded) {
		t.Fatalf("error %v has no code, want %s", err, want)
	}
	if got := coded.Code(); got != want {
		t.Fatalf("code: got %s, want %s", got, want)
	}
}
