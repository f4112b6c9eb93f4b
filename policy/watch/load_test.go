package watch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
)

func names(dir string, sources []policy.Source) []string {
	var all []string
	for _, s := range sources {
		rel, _ := filepath.Rel(dir, s.Name)
		all = append(all, rel)
	}
	return all
}

func TestLoadDirTakesYAMLFilesInOrder(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yml", "a.yaml", ".hidden.yaml", "..data.yaml", "notes.txt", "yaml"} {
		write(t, filepath.Join(dir, name), limit(1))
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700))
	must(t, os.Symlink("notes.txt", filepath.Join(dir, "c.yaml")))
	sources, err := watch.LoadDir(dir)
	if want := []string{"a.yaml", "b.yml", "c.yaml"}; err != nil || !reflect.DeepEqual(names(dir, sources), want) {
		t.Errorf("got %v, %v; want %v", names(dir, sources), err, want)
	}
	sources, err = watch.LoadFiles(filepath.Join(dir, "notes.txt"), dir)
	if want := []string{"notes.txt", "a.yaml", "b.yml", "c.yaml"}; err != nil || !reflect.DeepEqual(names(dir, sources), want) {
		t.Errorf("got %v, %v; want %v", names(dir, sources), err, want)
	}
	if got, want := string(sources[0].Data), limit(1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoadRefusesWhatItShouldNotRead(t *testing.T) {
	dangling, fifo, crowd := t.TempDir(), t.TempDir(), t.TempDir()
	must(t, os.Symlink("nowhere", filepath.Join(dangling, "a.yaml")))
	must(t, syscall.Mkfifo(filepath.Join(fifo, "a.yaml"), 0o600)) // reading it would wait for ever
	for i := range watch.MaxFiles + 1 {
		write(t, filepath.Join(crowd, fmt.Sprintf("%d.yaml", i)), "")
	}
	for path, want := range map[string]string{
		dangling: "no such file", fifo: "is not a regular file", crowd: "more than 256 files", filepath.Join(fifo, "missing"): "no such file",
	} {
		if _, err := watch.LoadFiles(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	write(t, big, strings.Repeat("#", strict.MaxBytes+100))
	sources, err := watch.LoadFiles(big)
	if err != nil || len(sources[0].Data) != strict.MaxBytes+1 {
		t.Errorf("got %d bytes, %v; want reading to stop at %d", len(sources[0].Data), err, strict.MaxBytes+1)
	}
}
