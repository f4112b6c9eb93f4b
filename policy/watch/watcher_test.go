package watch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is a policy that is told from others by one number.
func limit(pages int) string {
	return fmt.Sprintf("apiVersion: semproxy.io/v1\ntenants: { acme: { limits: { pagesPerSecond: %d }, rules: [ { profile: exact } ] } }\n", pages)
}

const bad = "apiVersion: semproxy.io/v1\ntenants: { acme: { rulez: [] } }\n"

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// follower runs a watcher and sees every reload.
type follower struct {
	*watch.Watcher
	t      *testing.T
	events chan watch.Event
}

// follow starts a watcher that polls so seldom that only notifications can have reported a change.
func follow(t *testing.T, path string, poll time.Duration) *follower {
	t.Helper()
	f := &follower{t: t, events: make(chan watch.Event, 1000)}
	w, err := watch.New(path, watch.Options{
		Debounce: 5 * time.Millisecond, Poll: poll, OnReload: func(e watch.Event) { f.events <- e },
	})
	must(t, err)
	f.Watcher = w
	return f
}

// run follows the files until the test ends.
func (f *follower) run() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Errorf("Run: got error %v, want none", err)
		}
	})
}

// until returns the first reload that satisfies the condition.
func (f *follower) until(what string, condition func(watch.Event) bool) watch.Event {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-f.events:
			if condition(e) {
				return e
			}
		case <-deadline:
			f.t.Fatalf("no reload with %s came; status %+v", what, f.Status())
		}
	}
}

func (f *follower) wantLimit(pages float64) {
	f.t.Helper()
	e := f.until(fmt.Sprintf("%v pages per second", pages), func(e watch.Event) bool {
		return e.Err == nil && e.Set.Limits("acme").PagesPerSecond == pages
	})
	if got := f.Current(); got != e.Set {
		f.t.Errorf("got another set published than reported")
	}
	if s := f.Status(); s.LastError != "" || s.Version != e.Set.Version() || s.LoadedAt.IsZero() {
		f.t.Errorf("got status %+v, want version %s without an error", s, e.Set.Version())
	}
}

func (f *follower) wantError(part string) {
	f.t.Helper()
	before := f.Current()
	e := f.until("error "+part, func(e watch.Event) bool { return e.Err != nil && strings.Contains(e.Err.Error(), part) })
	if e.Set != before || f.Current() != before {
		f.t.Errorf("after a bad reload: got another set, want the last good one")
	}
	if s := f.Status(); s.LastError != e.Err.Error() || s.Version != before.Version() || s.Failures == 0 {
		f.t.Errorf("got status %+v, want the last good version and error %v", s, e.Err)
	}
}

const never = time.Hour

func TestFollowsWritesAndRenames(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, path, text string){
		"written in place": write,
		"renamed over, as editors do": func(t *testing.T, path, text string) {
			write(t, path+".swp", text)
			must(t, os.Rename(path+".swp", path))
		},
		"moved away and written anew": func(t *testing.T, path, text string) {
			must(t, os.Rename(path, path+"~"))
			write(t, path, text)
		},
	} {
		for _, kind := range []string{"file", "directory"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				dir := t.TempDir()
				file := filepath.Join(dir, "policy.yaml")
				write(t, file, limit(1))
				path := file
				if kind == "directory" {
					path = dir
				}
				f := follow(t, path, never)
				f.run()
				for i := 2; i < 5; i++ {
					replace(t, file, limit(i))
					f.wantLimit(float64(i))
				}
			})
		}
	}
}

func TestFollowsFilesThatComeAndGo(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), limit(1))
	f := follow(t, dir, never)
	f.run()
	write(t, filepath.Join(dir, "b.yml"), "apiVersion: semproxy.io/v1\ntenants: { globex: {} }\n")
	f.until("tenant globex", func(e watch.Event) bool { return e.Err == nil && len(e.Set.Tenants()) == 2 })
	must(t, os.Remove(filepath.Join(dir, "b.yml")))
	f.until("one tenant", func(e watch.Event) bool { return e.Err == nil && len(e.Set.Tenants()) == 1 })
}

// swap does to dir what the kubelet does to a mounted ConfigMap.
func swap(t *testing.T, dir string, generation int, files map[string]string) {
	t.Helper()
	data := filepath.Join(dir, "..data")
	old, oldErr := os.Readlink(data)
	fresh := fmt.Sprintf("..2026_01_02_03_04_%02d", generation)
	must(t, os.Mkdir(filepath.Join(dir, fresh), 0o700))
	for name, text := range files {
		write(t, filepath.Join(dir, fresh, name), text)
	}
	must(t, os.Symlink(fresh, data+"_tmp"))
	must(t, os.Rename(data+"_tmp", data))
	for name := range files {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
		}
	}
	if oldErr == nil {
		must(t, os.RemoveAll(filepath.Join(dir, old)))
	}
}

func TestFollowsConfigMapSwaps(t *testing.T) {
	for _, kind := range []string{"file", "directory"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			swap(t, dir, 0, map[string]string{"policy.yaml": limit(1)})
			path := dir
			if kind == "file" {
				path = filepath.Join(dir, "policy.yaml")
			}
			f := follow(t, path, never)
			f.run()
			for i := 1; i < 4; i++ {
				swap(t, dir, 2*i, map[string]string{"policy.yaml": limit(10 * i)})
				f.wantLimit(float64(10 * i))
				swap(t, dir, 2*i+1, map[string]string{"policy.yaml": bad})
				f.wantError("rulez: unknown key")
			}
			if s := f.Status(); s.Reloads != 3 || s.Failures != 3 {
				t.Errorf("got %d reloads and %d failures, want 3 and 3", s.Reloads, s.Failures)
			}
		})
	}
}

func TestBadContentKeepsTheLastGood(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, limit(1))
	f := follow(t, file, never)
	f.run()
	write(t, file+".new", bad)
	must(t, os.Rename(file+".new", file))
	f.wantError("policy.yaml:2:20: tenants.acme.rulez: unknown key")
	write(t, file+".new", limit(1)) // back to what was good before
	must(t, os.Rename(file+".new", file))
	f.wantLimit(1)
	if s := f.Status(); s.Reloads != 1 || s.Failures != 1 {
		t.Errorf("got %d reloads and %d failures, want 1 and 1", s.Reloads, s.Failures)
	}
}

func TestSameContentIsNoReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, limit(1))
	f := follow(t, file, time.Millisecond) // polls all the time
	f.run()
	must(t, os.Chtimes(file, time.Now(), time.Now().Add(time.Hour)))
	write(t, file+".new", limit(1))
	must(t, os.Rename(file+".new", file))
	write(t, file+".new", bad)
	must(t, os.Rename(file+".new", file))
	f.wantError("rulez") // the same bad content is polled again and again, and counted once
	write(t, file+".new", limit(2))
	must(t, os.Rename(file+".new", file))
	f.wantLimit(2)
	if s := f.Status(); s.Reloads != 1 || s.Failures != 1 {
		t.Errorf("got %d reloads and %d failures, want 1 and 1", s.Reloads, s.Failures)
	}
}

func TestDirectoryIsDeletedAndReturns(t *testing.T) {
	for name, path := range map[string]string{"directory": "policies", "file": "policies/policy.yaml", "below what is deleted": "policies/sub/deeper"} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			path := filepath.Join(root, path)
			file := path
			if filepath.Ext(path) == "" {
				file = filepath.Join(path, "policy.yaml")
			}
			must(t, os.MkdirAll(filepath.Dir(file), 0o700))
			write(t, file, limit(1))
			f := follow(t, path, never)
			f.run()
			for i := 2; i < 4; i++ {
				must(t, os.RemoveAll(filepath.Join(root, "policies")))
				f.wantError("no such file")
				must(t, os.MkdirAll(filepath.Dir(file), 0o700))
				write(t, file, limit(10*i))
				f.wantLimit(float64(10 * i))
				write(t, file, limit(10*i+1)) // the new directory is followed as the old one was
				f.wantLimit(float64(10*i + 1))
			}
		})
	}
}

func TestLinkToADirectoryIsRepointed(t *testing.T) {
	root := t.TempDir()
	for i, name := range []string{"blue", "green"} {
		must(t, os.Mkdir(filepath.Join(root, name), 0o700))
		write(t, filepath.Join(root, name, "policy.yaml"), limit(i+1))
	}
	link := filepath.Join(root, "policies")
	must(t, os.Symlink("blue", link))
	f := follow(t, link, never)
	f.run()
	must(t, os.Symlink("green", link+"_tmp"))
	must(t, os.Rename(link+"_tmp", link))
	f.wantLimit(2)
	write(t, filepath.Join(root, "green", "policy.yaml"), limit(3))
	f.wantLimit(3)
}

func TestChangeBetweenNewAndRunIsSeen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, limit(1))
	f := follow(t, file, never)
	write(t, file, limit(2))
	f.run()
	f.wantLimit(2)
}

func TestPollFindsWhatNobodyReports(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "target.yaml")
	write(t, elsewhere, limit(1))
	dir := t.TempDir()
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "policy.yaml")))
	f := follow(t, dir, time.Millisecond)
	f.run()
	write(t, elsewhere+".new", limit(2))
	must(t, os.Rename(elsewhere+".new", elsewhere))
	f.wantLimit(2)
}

func TestReadersSeeWholePolicies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, limit(1))
	f := follow(t, file, never)
	f.run()
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				set := f.Current()
				d, err := set.Decide(policy.Request{Tenant: "acme"})
				if err != nil || d.Version != set.Version() {
					t.Errorf("got version %q, %v; want %q", d.Version, err, set.Version())
					return
				}
				_ = f.Status()
			}
		})
	}
	for i := 2; i < 6; i++ {
		write(t, file+".new", limit(i))
		must(t, os.Rename(file+".new", file))
		f.wantLimit(float64(i))
	}
	cancel()
	readers.Wait()
}

func TestNewRefusesToStartWithoutRules(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "bad.yaml"), bad)
	for path, want := range map[string]string{
		filepath.Join(dir, "missing.yaml"): "no such file",
		filepath.Join(dir, "bad.yaml"):     "rulez: unknown key",
		t.TempDir():                        "has no file *.yaml or *.yml",
	} {
		w, err := watch.New(path, watch.Options{})
		if err == nil || w != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", filepath.Base(path), err, want)
		}
	}
}

func TestASwapHoldsUntilTheFilesChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	write(t, path, limit(1))
	reloaded := make(chan watch.Event, 1)
	w, err := watch.New(path, watch.Options{Debounce: time.Millisecond, OnReload: func(e watch.Event) { reloaded <- e }})
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(policy.Source{Name: "api", Data: []byte(limit(2))})
	if err != nil {
		t.Fatal(err)
	}
	first := w.Current().Version()
	if err := w.Swap(first, set); err != nil || w.Current() != set || w.Status().Version != set.Version() {
		t.Errorf("got %v, want the set in force", err)
	}
	if err := w.Swap(first, set); !errors.Is(err, watch.ErrStale) {
		t.Errorf("the version of before: got %v, want %v", err, watch.ErrStale)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	write(t, path+".new", limit(3)) // whole at once: a file that is being written is empty first
	must(t, os.Rename(path+".new", path))
	if e := <-reloaded; e.Err != nil || w.Current() == set {
		t.Errorf("got %v, want the files in force again", e.Err)
	}
	cancel()
	must(t, <-done)
}
