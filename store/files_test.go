package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

func TestEveryFlippedBitIsAMissWhileOpen(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{MemoryBytes: -1})
	blob := storetest.Blob(1, 50)
	put(t, files, testKey("a"), blob, store.PutOptions{TTL: time.Hour})
	length := fileLength(t, objectFile(t, dir, testKey("a")))
	for offset := range length {
		put(t, files, testKey("a"), blob, store.PutOptions{TTL: time.Hour})
		flipBit(t, objectFile(t, dir, testKey("a")), offset)
		if _, err := files.Get(t.Context(), testKey("a")); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Get with byte %d changed: got %v, want %v", offset, err, store.ErrNotFound)
		}
		if left := filesUnder(t, dir); len(left) != 0 {
			t.Fatalf("files after byte %d changed: got %v, want none", offset, left)
		}
	}
	if got, want := files.Stats().Damaged, uint64(length); got != want {
		t.Errorf("Damaged: got %d, want %d", got, want)
	}
}

func TestEveryFlippedBitAndEveryTruncationIsAMissAfterReopening(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	put(t, files, testKey("a"), storetest.Blob(1, 50), store.PutOptions{})
	closeFiles(t, files)
	path := objectFile(t, dir, testKey("a"))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * len(whole) {
		broken := bytes.Clone(whole)
		if i < len(whole) {
			broken[i] ^= 1 << (i % 8)
		} else {
			broken = broken[:i-len(whole)]
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		files := openFiles(t, dir, store.FilesOptions{})
		if _, err := files.Get(t.Context(), testKey("a")); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Get of damage %d: got %v, want %v", i, err, store.ErrNotFound)
		}
		if got := files.Stats(); got.Damaged != 1 || got.Objects != 0 || got.Bytes != 0 {
			t.Fatalf("Stats of damage %d: got %+v, want one damaged object and nothing stored", i, got)
		}
		closeFiles(t, files)
	}
}

func TestAnObjectMovedToAnotherNameIsNotServed(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	put(t, files, testKey("a"), []byte("secret of acme"), store.PutOptions{})
	closeFiles(t, files)
	from := objectFile(t, dir, testKey("a"))
	to := filepath.Join(dir, "t-globex", filepath.Base(from))
	if err := os.Mkdir(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
	files = openFiles(t, dir, store.FilesOptions{})
	key := store.Key{Tenant: "globex", Object: testKey("a").Object}
	if _, err := files.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get: got %v, want %v", err, store.ErrNotFound)
	}
	if got := files.Stats(); got.Objects != 0 || got.Damaged != 1 {
		t.Errorf("Stats: got %+v, want no object and one damaged", got)
	}
}

func TestAReopenedStoreReplacesWhatItFound(t *testing.T) {
	dir := t.TempDir()
	for _, content := range []string{"first", "second", "third"} {
		files := openFiles(t, dir, store.FilesOptions{MemoryBytes: -1})
		put(t, files, testKey("a"), []byte(content), store.PutOptions{})
		if got, err := files.Get(t.Context(), testKey("a")); err != nil || string(got) != content {
			t.Errorf("Get: got %q, %v, want %s", got, err, content)
		}
		closeFiles(t, files)
	}
}

// A process that was killed between the commit of a new version and the removal of the old one leaves both.
func TestTheNewerOfTwoVersionsIsTheObject(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	put(t, files, testKey("a"), []byte("older"), store.PutOptions{})
	path := objectFile(t, dir, testKey("a"))
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, files, testKey("a"), []byte("newer"), store.PutOptions{})
	closeFiles(t, files)
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	files = openFiles(t, dir, store.FilesOptions{})
	if got, err := files.Get(t.Context(), testKey("a")); err != nil || string(got) != "newer" {
		t.Errorf("Get: got %q, %v, want newer", got, err)
	}
	objectFile(t, dir, testKey("a")) // only one is left
}

func TestAFileRemovedBehindTheStoreIsAMissAndIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{MemoryBytes: -1})
	put(t, files, testKey("a"), []byte("x"), store.PutOptions{})
	for _, removed := range []string{objectFile(t, dir, testKey("a")), filepath.Join(dir, "t-acme")} {
		if err := os.RemoveAll(removed); err != nil {
			t.Fatal(err)
		}
		put(t, files, testKey("a"), []byte("x"), store.PutOptions{})
		if _, err := files.Get(t.Context(), testKey("a")); err != nil {
			t.Fatalf("Get: got %v, want nil", err)
		}
	}
}

func TestARepeatedPutWritesNothing(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	put(t, files, testKey("a"), storetest.Blob(1, 1000), store.PutOptions{TTL: time.Hour})
	before := objectFile(t, dir, testKey("a"))
	put(t, files, testKey("a"), storetest.Blob(1, 1000), store.PutOptions{TTL: time.Hour})
	if after := objectFile(t, dir, testKey("a")); after != before {
		t.Errorf("file: got %s, want the one from before, %s", after, before)
	}
}

func TestReadsComeFromMemoryWithinItsBound(t *testing.T) {
	files := openFiles(t, t.TempDir(), store.FilesOptions{MemoryBytes: 10_000})
	put(t, files, testKey("small"), storetest.Blob(1, 1000), store.PutOptions{})
	put(t, files, testKey("large"), storetest.Blob(2, 20_000), store.PutOptions{})
	for range 3 {
		for _, name := range []string{"small", "large"} {
			if _, err := files.Get(t.Context(), testKey(name)); err != nil {
				t.Fatalf("Get: got %v, want nil", err)
			}
		}
	}
	if got := files.Stats(); got.Hits != 6 || got.MemoryHits != 3 {
		t.Errorf("hits: got %d with %d from memory, want 6 with 3", got.Hits, got.MemoryHits)
	}
}

func TestExpiredObjectsAreSweptInTheBackground(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		files := openFiles(t, dir, store.FilesOptions{SweepEvery: time.Minute})
		put(t, files, testKey("short"), []byte("x"), store.PutOptions{TTL: 30 * time.Second})
		put(t, files, testKey("long"), []byte("yy"), store.PutOptions{TTL: time.Hour})
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if n, b, _ := files.Usage(t.Context(), "acme"); n != 1 || b != 2 {
			t.Errorf("Usage: got %d objects of %d bytes, want 1 of 2", n, b)
		}
		if left := filesUnder(t, dir); len(left) != 1 {
			t.Errorf("files: got %v, want one", left)
		}
		if got := files.Stats().Expired; got != 1 {
			t.Errorf("Expired: got %d, want 1", got)
		}
		closeFiles(t, files)
	})
}

func TestReopeningKeepsTheTotalLimitAndTheOrderOfAge(t *testing.T) {
	dir, clock := t.TempDir(), &clock{}
	files := openFiles(t, dir, clock.opt())
	for i, name := range []string{"1", "2", "3", "4"} {
		put(t, files, testKey(name), storetest.Blob(uint64(i), 40), store.PutOptions{})
		clock.advance(time.Second)
	}
	closeFiles(t, files)
	opt := clock.opt()
	opt.MaxBytes = 100
	files = openFiles(t, dir, opt)
	for name, want := range map[string]error{"1": store.ErrNotFound, "2": store.ErrNotFound, "3": nil, "4": nil} {
		if _, err := files.Get(t.Context(), testKey(name)); !errors.Is(err, want) {
			t.Errorf("Get %s: got %v, want %v", name, err, want)
		}
	}
	if left := filesUnder(t, dir); len(left) != 2 {
		t.Errorf("files: got %v, want two", left)
	}
}

func TestTheNumberOfObjectsIsBounded(t *testing.T) {
	files := openFiles(t, t.TempDir(), store.FilesOptions{MaxObjects: 2})
	for _, name := range []string{"1", "2", "3"} {
		put(t, files, testKey(name), nil, store.PutOptions{})
	}
	if n, _, _ := files.Usage(t.Context(), "acme"); n != 2 {
		t.Errorf("objects: got %d, want 2", n)
	}
	if _, err := files.Stat(t.Context(), testKey("1")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Stat of the oldest: got %v, want %v", err, store.ErrNotFound)
	}
}

func TestOpeningLeavesForeignFilesAloneAndClearsLeftovers(t *testing.T) {
	dir := t.TempDir()
	for path, keep := range map[string]bool{
		"README": true, "t-acme/notes.obj": true, "other/file": true, "t-acme/.tmp-0000000000000001": false,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := os.Stat(path); (err == nil) != keep {
				t.Errorf("%s: kept %v, want %v", path, err == nil, keep)
			}
		})
	}
	openFiles(t, dir, store.FilesOptions{})
}

func TestOneDirectoryHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	if _, err := store.OpenFiles(dir, store.FilesOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("second open: got %v, want %v", err, store.ErrUnavailable)
	}
	closeFiles(t, files)
	openFiles(t, dir, store.FilesOptions{})
}

func fileLength(t *testing.T, path string) int {
	t.Helper()
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(stat.Size())
}
