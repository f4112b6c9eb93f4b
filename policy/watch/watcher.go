package watch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/semproxy/semproxy/policy"
)

// Options adjust a Watcher. The zero value is good.
type Options struct {
	// Debounce is how long the files must be quiet before they are read; 100 ms by default. Files that are never quiet are
	// read after ten times that.
	Debounce time.Duration
	// Poll is how often the files are read although nothing was reported; 30 s by default.
	Poll time.Duration
	// OnReload is called after every reload, good or bad, from the goroutine of Run; the next change waits for it. It is not
	// called for the load in New. May be nil.
	OnReload func(Event)
}

// Event is one reload.
type Event struct {
	Set *policy.Set // what is in force now: the new policy, or the last good one when Err is set
	Err error       // why the new content was refused; nil when it was taken
}

// Status is what a person wants to know about the policy in force.
type Status struct {
	Version   string    `json:"version"`             // of the policy in force
	LoadedAt  time.Time `json:"loadedAt"`            // when it was taken
	LastError string    `json:"lastError,omitempty"` // why the present files are not in force; empty when they are
	Reloads   uint64    `json:"reloads"`             // changes that were taken
	Failures  uint64    `json:"failures"`            // changes that were refused
}

// Watcher publishes the policy of one file or directory. Its methods are safe for concurrent use; Run is called at most once.
type Watcher struct {
	path    string
	options Options
	current atomic.Pointer[policy.Set]

	mu     sync.Mutex
	status Status

	seen fingerprint // of the last content tried, good or bad; owned by New, then by Run
}

// New loads the policy at path, a file or a directory, and fails when that is not possible: a service never starts without
// rules. Nothing is followed until Run.
func New(path string, options Options) (*Watcher, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	options.Debounce, options.Poll = cmp.Or(options.Debounce, 100*time.Millisecond), cmp.Or(options.Poll, 30*time.Second)
	w := &Watcher{path: absolute, options: options}
	set, seen, err := read(w.path)
	if err != nil {
		return nil, err
	}
	w.seen = seen
	w.current.Store(set)
	w.status = Status{Version: set.Version(), LoadedAt: time.Now()}
	return w, nil
}

// Current returns the policy in force; never nil. Take it once per request.
func (w *Watcher) Current() *policy.Set { return w.current.Load() }

// ErrStale says that another policy is in force than the caller has seen.
var ErrStale = errors.New("the policy has changed meanwhile")

// Swap puts set in force in place of the policy of that version, else it returns ErrStale. It holds until the files change:
// they are not written to.
func (w *Watcher) Swap(version string, set *policy.Set) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.current.Load().Version() != version {
		return ErrStale
	}
	w.current.Store(set)
	w.status.Reloads++
	w.status.Version, w.status.LoadedAt, w.status.LastError = set.Version(), time.Now(), ""
	return nil
}

// Status returns the present state.
func (w *Watcher) Status() Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// Run follows the files until ctx ends, then returns nil with everything it started ended. It first reads the files again,
// so a change between New and Run is not missed. An error means that nothing can be followed on this system.
func (w *Watcher) Run(ctx context.Context) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch policy: %w", err)
	}
	defer func() { _ = notify.Close() }() // only releases; there is nothing to do about an error
	dirs := newDirs(w.path, notify)
	quiet := newDebounce(w.options.Debounce)
	defer quiet.stop()
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()

	dirs.arm()
	w.reload()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-notify.Events:
			if !ok {
				return errors.New("watch policy: notifications ended")
			}
			if dirs.changed(event) {
				quiet.push()
			}
		case _, ok := <-notify.Errors: // the kernel's queue was too short: something changed, nobody knows what
			if !ok {
				return errors.New("watch policy: notifications ended")
			}
			quiet.push()
		case <-quiet.C():
			quiet.done()
			dirs.arm() // before reading: a change during or after the read is reported
			w.reload()
		case <-poll.C:
			dirs.arm()
			w.reload()
		}
	}
}

// reload takes the files as they are now, unless they are what was tried last.
func (w *Watcher) reload() {
	set, seen, err := read(w.path)
	if seen == w.seen {
		return
	}
	w.seen = seen
	w.mu.Lock()
	if err != nil {
		w.status.Failures++
		w.status.LastError = err.Error()
	} else {
		w.current.Store(set)
		w.status.Reloads++
		w.status.Version, w.status.LoadedAt, w.status.LastError = set.Version(), time.Now(), ""
	}
	w.mu.Unlock()
	if w.options.OnReload != nil {
		w.options.OnReload(Event{Set: w.current.Load(), Err: err})
	}
}

// fingerprint tells one content, or one failure to read it, from another.
type fingerprint [sha256.Size]byte

// read loads and compiles path. The fingerprint is always set.
func read(path string) (*policy.Set, fingerprint, error) {
	sources, err := LoadFiles(path)
	if err != nil {
		return nil, sha256.Sum256([]byte("error: " + err.Error())), err
	}
	hash := sha256.New()
	for _, s := range sources {
		for _, part := range [][]byte{[]byte(s.Name), s.Data} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			hash.Write(size[:])
			hash.Write(part)
		}
	}
	set, err := policy.Compile(sources...)
	return set, fingerprint(hash.Sum(nil)), err
}
