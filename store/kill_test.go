package store_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/storetest"
)

func init() { children["writer"] = endlessWriter }

// Every object whose Put had returned outlives a SIGKILL of the process (not a power loss: that needs Sync).
func TestWhatWasPutOutlivesAKill(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir, next := t.TempDir(), 0
	committed := map[int]bool{}
	for range rounds {
		from := next
		for _, n := range killedWriter(t, dir, from, 20+rand.IntN(150)) {
			committed[n] = true
			next = max(next, n+1)
		}
		next += 8 // what may have been committed without being reported
		files := openFiles(t, dir, store.FilesOptions{MemoryBytes: -1})
		for n := range committed {
			got, err := files.Get(t.Context(), testKey(strconv.Itoa(n)))
			if err != nil || !bytes.Equal(got, writerBlob(n)) {
				t.Fatalf("object %d after a kill: got %d bytes, %v, want its %d", n, len(got), err, len(writerBlob(n)))
			}
		}
		if got := files.Stats(); got.Damaged != 0 {
			t.Errorf("Damaged: got %d, want 0", got.Damaged)
		}
		closeFiles(t, files)
		for _, path := range filesUnder(t, dir) {
			if strings.Contains(path, ".tmp-") {
				t.Errorf("left behind: %s", path)
			}
		}
	}
	t.Logf("%d objects committed over %d kills", len(committed), rounds)
}

// killedWriter runs a writer that starts at object from, kills it at a random moment after it has reported a number
// of objects, and returns all that it reported.
func killedWriter(t *testing.T, dir string, from, reports int) []int {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=writer", "STORE_DIR="+dir, "STORE_FROM="+strconv.Itoa(from))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("child said %q, want a number", lines.Text())
		}
		numbers = append(numbers, n)
		if len(numbers) == reports {
			time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() { _ = child.Process.Kill() })
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the writer ended by itself, want a kill")
	}
	if len(numbers) < reports {
		t.Fatalf("reports: got %d, want at least %d", len(numbers), reports)
	}
	return numbers
}

func writerBlob(n int) []byte { return storetest.Blob(uint64(n), 1+n*7919%200_000) }

// endlessWriter puts objects from several goroutines and prints the number of each once its Put has returned.
func endlessWriter() int {
	files, err := store.OpenFiles(os.Getenv("STORE_DIR"), store.FilesOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, "open:", err)
		return 1
	}
	from, err := strconv.Atoi(os.Getenv("STORE_FROM"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	const writers = 4
	failed := make(chan error)
	for w := range writers {
		go func() {
			for n := from + w; ; n += writers {
				if err := putBackground(files, testKey(strconv.Itoa(n)), writerBlob(n)); err != nil {
					failed <- err
					return
				}
				fmt.Println(n)
			}
		}()
	}
	fmt.Fprintln(os.Stderr, "put:", <-failed)
	return 1
}

func putBackground(files *store.Files, key store.Key, blob []byte) error {
	return files.Put(context.Background(), key, blob, store.PutOptions{})
}
