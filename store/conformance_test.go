package store_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

var _ storetest.Store = (*store.Files)(nil)

// clock is a clock that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_800_000_000, c.ahead.Load()) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) opt() store.FilesOptions { return store.FilesOptions{Clock: c.now} }

func TestFilesConform(t *testing.T) {
	for name, memory := range map[string]int64{"cached": 1 << 20, "small cache": 2000, "uncached": -1} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, opt storetest.Options) storetest.Harness {
				dir, clock := t.TempDir(), &clock{}
				fileOpt := clock.opt()
				fileOpt.MemoryBytes, fileOpt.MaxBytes = memory, opt.MaxBytes
				files := openFiles(t, dir, fileOpt)
				h := storetest.Harness{Store: files, Advance: clock.advance, Reopen: func(t *testing.T) storetest.Store {
					closeFiles(t, files)
					return openFiles(t, dir, fileOpt)
				}}
				if memory < 0 {
					h.Damage = func(t *testing.T, key store.Key) { flipBit(t, objectFile(t, dir, key), -1) }
				}
				return h
			})
		})
	}
}

func TestSealedFilesConform(t *testing.T) {
	keys := storetest.Keys(t, map[string]string{"k1": strings.Repeat("k", 32)}, "* k1\n")
	storetest.Run(t, func(t *testing.T, opt storetest.Options) storetest.Harness {
		dir, clock := t.TempDir(), &clock{}
		const overhead = 105
		fileOpt := clock.opt()
		fileOpt.MemoryBytes = -1
		if opt.MaxBytes > 0 {
			fileOpt.MaxBytes = opt.MaxBytes + 2*overhead
		}
		files := openFiles(t, dir, fileOpt)
		return storetest.Harness{
			Store: sealed(t, files, keys), Overhead: overhead, Advance: clock.advance,
			Reopen: func(t *testing.T) storetest.Store {
				closeFiles(t, files)
				return sealed(t, openFiles(t, dir, fileOpt), keys)
			},
			Damage: func(t *testing.T, key store.Key) { flipBit(t, objectFile(t, dir, key), -1) },
		}
	})
}

func sealed(t *testing.T, below store.Store, dir string) *store.Sealed {
	t.Helper()
	keys, err := store.OpenKeyring(dir, nil)
	if err != nil {
		t.Fatalf("OpenKeyring: got %v, want nil", err)
	}
	return store.NewSealed(below, keys)
}

func TestMemoryConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T, opt storetest.Options) storetest.Harness {
		clock := &clock{}
		fileOpt := clock.opt()
		fileOpt.MaxBytes = opt.MaxBytes
		files, err := store.OpenMemory(fileOpt)
		if err != nil {
			t.Fatalf("OpenMemory: got %v, want nil", err)
		}
		return storetest.Harness{Store: files, Advance: clock.advance}
	})
}

func TestEmptyDirectoryNameIsMemoryOnly(t *testing.T) {
	t.Chdir(t.TempDir())
	files := openFiles(t, "", store.FilesOptions{})
	put(t, files, testKey("a"), []byte("x"), store.PutOptions{})
	closeFiles(t, files)
	if got := filesUnder(t, "."); len(got) != 0 {
		t.Errorf("files: got %v, want none", got)
	}
}

func openFiles(t testing.TB, dir string, opt store.FilesOptions) *store.Files {
	t.Helper()
	files, err := store.OpenFiles(dir, opt)
	if err != nil {
		t.Fatalf("OpenFiles: got %v, want nil", err)
	}
	t.Cleanup(func() { _ = files.Close() })
	return files
}

func closeFiles(t testing.TB, files *store.Files) {
	t.Helper()
	if err := files.Close(); err != nil {
		t.Fatalf("Close: got %v, want nil", err)
	}
}

func put(t testing.TB, files *store.Files, key store.Key, blob []byte, opt store.PutOptions) {
	t.Helper()
	if err := files.Put(t.Context(), key, blob, opt); err != nil {
		t.Fatalf("Put: got %v, want nil", err)
	}
}

func testKey(name string) store.Key { return store.Key{Tenant: "acme", Object: storetest.Object(name)} }

// filesUnder lists every file below dir but the lock.
func filesUnder(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "LOCK" {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatalf("walk: %v", err)
	}
	return found
}

// objectFile finds the one file of an object.
func objectFile(t testing.TB, dir string, key store.Key) string {
	t.Helper()
	var found []string
	for _, path := range filesUnder(t, dir) {
		if strings.HasPrefix(filepath.Base(path), key.Object) {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		t.Fatalf("files of the object: got %v, want one", found)
	}
	return found[0]
}

// flipBit changes one bit of the file; a negative offset counts from its end.
func flipBit(t testing.TB, path string, offset int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if offset < 0 {
		offset += len(content)
	}
	content[offset] ^= 1 << (offset % 8)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
