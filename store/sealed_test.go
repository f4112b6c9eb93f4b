package store_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

const (
	oldMaster = "an old key of thirty-two bytes!!"
	newMaster = "a newer key of thirty-two bytes!"
)

var content = storetest.Blob(1, 5000)

func TestNothingOfTheContentIsInTheFiles(t *testing.T) {
	dir := t.TempDir()
	s := sealed(t, openFiles(t, dir, store.FilesOptions{}), storetest.Keys(t, map[string]string{"k1": oldMaster}, "acme k1\n"))
	open := store.Key{Tenant: "globex", Object: testKey("a").Object}
	for _, key := range []store.Key{testKey("a"), open} {
		if err := s.Put(t.Context(), key, content, store.PutOptions{}); err != nil {
			t.Fatalf("Put: got %v, want nil", err)
		}
		want := key == open // a tenant without a key
		file, err := os.ReadFile(objectFile(t, filepath.Join(dir, "t-"+key.Tenant), key))
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(file, content[100:116]); got != want {
			t.Errorf("content of %s in the clear: got %v, want %v", key.Tenant, got, want)
		}
	}
	if got := s.Stats().Sealed; got != 1 {
		t.Errorf("Sealed: got %d, want 1", got)
	}
}

// A key is changed while the store is open: what the old one encrypted is read as long as its file is there.
func TestKeysRotate(t *testing.T) {
	keysDir := storetest.Keys(t, map[string]string{"k1": oldMaster}, "acme k1\n")
	keys, err := store.OpenKeyring(keysDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := store.NewSealed(openFiles(t, "", store.FilesOptions{}), keys)
	put := func(name string) {
		if err := s.Put(t.Context(), testKey(name), content, store.PutOptions{}); err != nil {
			t.Fatalf("Put: got %v, want nil", err)
		}
	}
	get := func(name string, want error) {
		t.Helper()
		blob, err := s.Get(t.Context(), testKey(name))
		if !errors.Is(err, want) || want == nil && !bytes.Equal(blob, content) {
			t.Errorf("Get of %s: got %d bytes, %v, want %v", name, len(blob), err, want)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(keysDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("old")
	write("k2.key", hex.EncodeToString([]byte(newMaster))+"\n")
	write("tenants", "# acme k1\nacme k2 # since today\n")
	if err := keys.Reload(); err != nil {
		t.Fatalf("Reload: got %v, want nil", err)
	}
	put("new")
	get("old", nil)
	get("new", nil)

	if err := os.Remove(filepath.Join(keysDir, "k1.key")); err != nil {
		t.Fatal(err)
	}
	if err := keys.Reload(); err != nil {
		t.Fatalf("Reload: got %v, want nil", err)
	}
	get("old", store.ErrSealed)
	get("new", nil)
	if got := s.Stats().Missing; got != 1 {
		t.Errorf("Missing: got %d, want 1", got)
	}

	write("tenants", "acme k3\n") // a mistake changes nothing
	if err := keys.Reload(); err == nil || !strings.Contains(err.Error(), "tenants:1: there is no key file k3.key") {
		t.Errorf("Reload: got %v, want file, line and reason", err)
	}
	put("newer")
	get("newer", nil)

	write("k2.key", base64.StdEncoding.EncodeToString([]byte(oldMaster)))
	write("tenants", "acme k2")
	if err := keys.Reload(); err != nil {
		t.Fatalf("Reload: got %v, want nil", err)
	}
	get("new", store.ErrSealed) // another key under the same name
	if got := s.Stats().Refused; got != 1 {
		t.Errorf("Refused: got %d, want 1", got)
	}
}

// Whoever can write to the store below cannot make a sealed object say anything else.
func TestASealedObjectOpensOnlyAsWhatItWasPut(t *testing.T) {
	below := openFiles(t, "", store.FilesOptions{})
	s := sealed(t, below, storetest.Keys(t, map[string]string{"k1": oldMaster, "k2": newMaster}, "* k1\n"))
	k := testKey("a")
	if err := s.Put(t.Context(), k, content, store.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := below.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  store.Key
		blob []byte
		want error
	}{
		"as another object":         {testKey("b"), raw, store.ErrSealed},
		"as another tenant's":       {store.Key{Tenant: "globex", Object: k.Object}, raw, store.ErrSealed},
		"with another key's name":   {k, bytes.Replace(raw, []byte("k1"), []byte("k2"), 1), store.ErrSealed},
		"with an impossible name":   {k, append(append([]byte("SEMSEAL1"), 255), raw[9:]...), store.ErrSealed},
		"with another salt":         {k, flipped(raw, 80), store.ErrSealed},
		"with another first byte":   {k, flipped(raw, 89), store.ErrSealed},
		"with another tag":          {k, flipped(raw, len(raw)-1), store.ErrSealed},
		"without its end":           {k, raw[:len(raw)-1], store.ErrSealed},
		"without its header":        {k, raw[89:], store.ErrNotFound},
		"in the clear":              {k, content, store.ErrNotFound},
		"as nothing":                {k, nil, store.ErrNotFound},
		"as nothing but its header": {k, raw[:89], store.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			put(t, below, c.key, c.blob, store.PutOptions{})
			if blob, err := s.Get(t.Context(), c.key); !errors.Is(err, c.want) {
				t.Errorf("Get: got %d bytes, %v, want %v", len(blob), err, c.want)
			}
		})
	}
	put(t, below, k, raw, store.PutOptions{})
	if blob, err := s.Get(t.Context(), k); err != nil || !bytes.Equal(blob, content) {
		t.Errorf("Get of the object itself: got %d bytes, %v, want it", len(blob), err)
	}
}

func flipped(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 4
	return b
}

func TestAFolderOfKeysWithMistakesSaysAllOfThem(t *testing.T) {
	const secret = "hunter2-hunter2"
	dir := storetest.Keys(t, map[string]string{"good": oldMaster, "short": secret, "bad name": newMaster},
		"acme good\nacme good\nglobex\ninitech none\n* short\n")
	var log bytes.Buffer
	_, err := store.OpenKeyring(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err == nil {
		t.Fatal("OpenKeyring: got nil, want an error")
	}
	for _, want := range []string{
		"short.key: must hold 32 bytes", "bad name.key: the name of a key", "tenants:2: tenant acme has a line already",
		"tenants:3: must be a tenant and the name of a key", "tenants:4: there is no key file none.key", "tenants:5: there is no key file short.key",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error: got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error()+log.String(), secret) {
		t.Errorf("a key is in the error or the log: %v", err)
	}
	if _, err := store.OpenKeyring(filepath.Join(dir, "nowhere"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenKeyring of a folder that is not there: got %v, want %v", err, os.ErrNotExist)
	}
}

// The same content under the same name is a repeat, encrypted or not: it does not replace what is there.
func TestARepeatedPutOfASealedObjectIsARepeat(t *testing.T) {
	below := openFiles(t, "", store.FilesOptions{})
	s := sealed(t, below, storetest.Keys(t, map[string]string{"k1": oldMaster}, "* k1\n"))
	versions := map[string]bool{}
	for range 3 {
		if err := s.Put(t.Context(), testKey("a"), content, store.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		info, err := s.Stat(t.Context(), testKey("a"))
		if err != nil || info.Size != int64(len(content)) {
			t.Fatalf("Stat: got %v, %v, want %d bytes", info, err, len(content))
		}
		versions[info.Version] = true
	}
	if len(versions) != 1 {
		t.Errorf("versions: got %d, want 1", len(versions))
	}
}

// What does encryption cost beside the store in memory?
func BenchmarkSealed(b *testing.B) {
	blob := storetest.Blob(1, 1<<20)
	keys, err := store.OpenKeyring(storetest.Keys(b, map[string]string{"k1": oldMaster}, "* k1\n"), nil)
	if err != nil {
		b.Fatal(err)
	}
	for name, s := range map[string]store.Store{
		"clear":  openFiles(b, "", store.FilesOptions{}),
		"sealed": store.NewSealed(openFiles(b, "", store.FilesOptions{}), keys),
	} {
		b.Run("put/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(blob)))
			for i := 0; b.Loop(); i++ {
				blob[0] = byte(i)
				if err := s.Put(b.Context(), testKey("a"), blob, store.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("get/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(blob)))
			for b.Loop() {
				if _, err := s.Get(b.Context(), testKey("a")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
