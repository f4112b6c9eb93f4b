// Package reload keeps what is read from a file in step with the file: keys, tokens, key sets.
//
// A [File] looks at the file when it is asked, at most once a second, and reads it again when it has changed. A bad change
// keeps the last good value and is logged once. There is no goroutine to start or stop.
package reload

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// MaxBytes bounds a file.
const MaxBytes = 4 << 20

// every is how often the file is looked at.
const every = time.Second

// File is the value of a file. It is safe for concurrent use; Get takes no lock and reads no file in between two looks.
type File[T any] struct {
	path  string
	parse func(path string, data []byte) (T, error)
	log   *slog.Logger
	now   func() time.Time

	value atomic.Pointer[T]
	next  atomic.Int64 // when to look, in nanoseconds

	mu   sync.Mutex // of who looks
	seen os.FileInfo
}

// Open reads the file, which must be good. now may be nil.
func Open[T any](path string, parse func(path string, data []byte) (T, error), log *slog.Logger, now func() time.Time) (*File[T], error) {
	f := &File[T]{path: path, parse: parse, log: log, now: now}
	if f.now == nil {
		f.now = time.Now
	}
	info, value, err := f.read()
	if err != nil {
		return nil, err
	}
	f.seen = info
	f.value.Store(value)
	f.next.Store(f.now().Add(every).UnixNano())
	return f, nil
}

// Get is the value in force.
func (f *File[T]) Get() T {
	if f.now().UnixNano() >= f.next.Load() && f.mu.TryLock() {
		f.look()
		f.mu.Unlock()
	}
	return *f.value.Load()
}

func (f *File[T]) look() {
	defer func() { f.next.Store(f.now().Add(every).UnixNano()) }()
	info, err := os.Stat(f.path)
	if err == nil && os.SameFile(info, f.seen) && info.Size() == f.seen.Size() && info.ModTime().Equal(f.seen.ModTime()) {
		return
	}
	if err != nil && f.seen == nil {
		return // it has been said that it cannot be read
	}
	info, value, err := f.read()
	f.seen = info
	if err != nil {
		f.log.Error("file_rejected", "path", f.path, "error", err.Error(), "effect", "the last good content stays in force")
		return
	}
	f.value.Store(value)
	f.log.Info("file_applied", "path", f.path)
}

// read returns the file's state as well when only the content is bad.
func (f *File[T]) read() (os.FileInfo, *T, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }() // only read
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("%s: is larger than %d bytes", f.path, MaxBytes)
	}
	if err != nil {
		return info, nil, err
	}
	value, err := f.parse(f.path, data)
	return info, &value, err
}
