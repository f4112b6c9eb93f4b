//go:build linux

package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

func init() { children["full"] = fullDisk }

// A disk that takes the first 64 KiB of a file and no more is a real failing write, in the middle of an object. The
// limit belongs to a process, so a child has it.
func TestAFullDiskIsUnavailableAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=full", "STORE_DIR="+dir)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, out)
	}
	if got := filesUnder(t, dir); len(got) != 1 {
		t.Errorf("files: got %v, want the small object alone", got)
	}
}

func fullDisk() int {
	signal.Ignore(syscall.SIGXFSZ)
	limit := syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Println("setrlimit:", err)
		return 1
	}
	files, err := store.OpenFiles(os.Getenv("STORE_DIR"), store.FilesOptions{})
	if err != nil {
		fmt.Println("open:", err)
		return 1
	}
	defer func() { _ = files.Close() }()
	if err := putBackground(files, testKey("big"), storetest.Blob(1, 1<<20)); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
		fmt.Printf("Put of a big object: got %v, want %v\n", err, store.ErrUnavailable)
		return 1
	}
	if err := putBackground(files, testKey("small"), storetest.Blob(2, 1<<10)); err != nil {
		fmt.Printf("Put of a small object: got %v, want nil\n", err)
		return 1
	}
	if n, b, _ := files.Usage(context.Background(), "acme"); n != 1 || b != 1<<10 {
		fmt.Printf("Usage: got %d objects of %d bytes, want 1 of %d\n", n, b, 1<<10)
		return 1
	}
	return 0
}

func TestAReadOnlyDirectoryIsUnavailable(t *testing.T) {
	if os.Geteuid() == 0 {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "unprivileged") {
			t.Fatal("SEMPROXY_TEST_REQUIRE names unprivileged, but the tests run as the superuser")
		}
		t.Skip("the superuser writes to read-only directories; TestATenantDirectoryInTheWayIsUnavailable covers the path")
	}
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	if err := files.Put(t.Context(), testKey("a"), []byte("x"), store.PutOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Put: got %v, want %v", err, store.ErrUnavailable)
	}
}

func TestATenantDirectoryInTheWayIsUnavailable(t *testing.T) {
	dir := t.TempDir()
	files := openFiles(t, dir, store.FilesOptions{})
	if err := os.WriteFile(filepath.Join(dir, "t-acme"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := files.Put(t.Context(), testKey("a"), []byte("x"), store.PutOptions{})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Put: got %v, want %v", err, store.ErrUnavailable)
	}
	if strings.Contains(err.Error(), dir) {
		t.Errorf("error names the local path: %v", err)
	}
	if n, _, _ := files.Usage(t.Context(), "acme"); n != 0 {
		t.Errorf("objects: got %d, want 0", n)
	}
	other := store.Key{Tenant: "globex", Object: testKey("a").Object}
	put(t, files, other, []byte("x"), store.PutOptions{})
}

func TestADirectoryThatCannotBeIsUnavailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenFiles(filepath.Join(file, "store"), store.FilesOptions{}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("OpenFiles: got %v, want %v", err, store.ErrUnavailable)
	}
}
