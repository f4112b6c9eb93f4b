package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// backend holds the bytes of versions; index says which versions there are.
type backend interface {
	write(e *entry, blob []byte) error // all of it or nothing
	read(e *entry) ([]byte, error)     // errDamaged when it is not what was written
	present(e *entry) bool
	remove(e *entry, lastOfTenant bool) error
	scan() (found []*entry, damaged int, err error)
	close() error
}

// Files is the embedded store. Open it with [OpenFiles] or [OpenMemory]. All methods are safe for concurrent use.
type Files struct {
	opt     FilesOptions
	backend backend
	cache   *memCache
	seq     atomic.Uint64

	gate   sync.RWMutex // held for reading by every operation, for writing by Close
	closed bool

	mu    sync.Mutex // guards index; never held during I/O
	index *index

	hits, memoryHits, misses, damaged, expired, evicted atomic.Uint64

	stop, swept chan struct{}
}

// OpenFiles opens the store in dir, which is created where needed and belongs to this process until Close (a second
// process, or a second open, gets ErrUnavailable). The account of what is stored is rebuilt from the files. An empty
// dir is OpenMemory.
func OpenFiles(dir string, opt FilesOptions) (*Files, error) {
	if dir == "" {
		return OpenMemory(opt)
	}
	disk, err := newDisk(dir, opt.Sync)
	if err != nil {
		return nil, err
	}
	return open(disk, opt.withDefaults(false))
}

// OpenMemory opens a store that keeps its objects in memory only, at most opt.MaxBytes.
func OpenMemory(opt FilesOptions) (*Files, error) { return open(ram{}, opt.withDefaults(true)) }

func open(b backend, opt FilesOptions) (*Files, error) {
	found, damaged, err := b.scan()
	if err != nil {
		return nil, errors.Join(unavailable("read store directory", err), b.close())
	}
	cache, err := newMemCache(opt.MemoryBytes)
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	f := &Files{
		opt: opt, backend: b, cache: cache, index: newIndex(),
		stop: make(chan struct{}), swept: make(chan struct{}),
	}
	f.damaged.Store(uint64(damaged))
	for _, e := range found {
		f.index.insert(e)
		f.seq.Store(max(f.seq.Load(), e.seq))
	}
	f.sweep()
	f.trim("", nil, 0)
	go f.sweeper()
	return f, nil
}

// Put stores the blob under key and returns once it is committed: from then on every reader sees it, and it outlives
// this process. The caller keeps the blob; nothing retains it. Over a quota or limit the oldest objects make room; a
// blob that is over one by itself is ErrTooLarge. Content that is already there is not written again, and a repeat
// never shortens its life (it is rewritten only to lengthen it by a tenth of the TTL or more); other content under the
// same key replaces it. On an error nothing of the blob remains.
func (f *Files) Put(ctx context.Context, key Key, blob []byte, opt PutOptions) error {
	if err := f.enter(ctx, key, "put"); err != nil {
		return err
	}
	defer f.gate.RUnlock()
	size := int64(len(blob))
	if (opt.Quota > 0 && size > opt.Quota) || (f.opt.MaxBytes > 0 && size > f.opt.MaxBytes) {
		return fmt.Errorf("put object of %d bytes: %w", size, ErrTooLarge)
	}
	now := f.opt.Clock().UnixNano()
	e := &entry{meta: meta{key: key, size: size, created: now, sum: sha256.Sum256(blob)}, heapAt: -1}
	if opt.TTL > 0 {
		e.expires = max(0, now+int64(opt.TTL)) // a sum past the end of time is never
	}
	if same := f.repeats(e, now, opt.TTL); same != nil {
		f.trim(key.Tenant, same, opt.Quota)
		return nil
	}
	e.seq = f.seq.Add(1)
	err := f.backend.write(e, blob)
	for try := 0; try < roomTries && errors.Is(err, syscall.ENOSPC) && f.makeRoom(key, size); try++ {
		err = f.backend.write(e, blob)
	}
	if err != nil {
		return unavailable("put object", err)
	}
	f.cache.putCopy(e.seq, blob)
	f.mu.Lock()
	old := f.index.insert(e)
	gone := f.index.evict(key.Tenant, e, opt.Quota, f.opt.MaxBytes, f.opt.MaxObjects)
	f.mu.Unlock()
	if old != nil {
		f.discard(old)
	}
	f.discardEvicted(gone)
	return nil
}

// repeats returns the stored version that makes writing e needless, or nil.
func (f *Files) repeats(e *entry, now int64, ttl time.Duration) *entry {
	f.mu.Lock()
	have := f.index.objects[e.key]
	f.mu.Unlock()
	if have == nil || have.expired(now) || have.size != e.size || have.sum != e.sum {
		return nil
	}
	if have.expires != 0 {
		if e.expires == 0 || e.expires-have.expires >= int64(ttl/10) && e.expires > have.expires {
			return nil
		}
	}
	if !f.backend.present(have) {
		return nil
	}
	return have
}

// Get returns the object's bytes, or ErrNotFound. The slice is shared with the cache and other readers: it must not be
// written to. It stays valid as long as the caller keeps it.
func (f *Files) Get(ctx context.Context, key Key) ([]byte, error) {
	blob, _, err := f.Fetch(ctx, key)
	return blob, err
}

// Fetch is Get and Stat of one version.
func (f *Files) Fetch(ctx context.Context, key Key) ([]byte, Info, error) {
	if err := f.enter(ctx, key, "get"); err != nil {
		return nil, Info{}, err
	}
	defer f.gate.RUnlock()
	for {
		e := f.lookup(key)
		if e == nil {
			f.misses.Add(1)
			return nil, Info{}, fmt.Errorf("get object: %w", ErrNotFound)
		}
		if blob, ok := f.cache.get(e.seq); ok {
			f.hits.Add(1)
			f.memoryHits.Add(1)
			return blob, e.info(), nil
		}
		blob, err := f.backend.read(e)
		switch {
		case err == nil:
			f.hits.Add(1)
			f.remember(e, blob)
			return blob, e.info(), nil
		case !errors.Is(err, errDamaged):
			return nil, Info{}, unavailable("get object", err)
		case f.forget(e):
			f.damaged.Add(1)
			f.discard(e)
		}
		// Removed here, or replaced while it was read: look again.
		if err := ctx.Err(); err != nil {
			return nil, Info{}, fmt.Errorf("get object: %w", err)
		}
	}
}

// Stat describes the object, or returns ErrNotFound. It reads no file.
func (f *Files) Stat(ctx context.Context, key Key) (Info, error) {
	if err := f.enter(ctx, key, "stat"); err != nil {
		return Info{}, err
	}
	defer f.gate.RUnlock()
	e := f.lookup(key)
	if e == nil {
		return Info{}, fmt.Errorf("stat object: %w", ErrNotFound)
	}
	return e.info(), nil
}

// Delete removes the object. An object that is not there is no error.
func (f *Files) Delete(ctx context.Context, key Key) error {
	if err := f.enter(ctx, key, "delete"); err != nil {
		return err
	}
	defer f.gate.RUnlock()
	e := f.lookup(key)
	if e == nil {
		return nil
	}
	if err := f.backend.remove(e, false); err != nil {
		return unavailable("delete object", err)
	}
	if f.forget(e) {
		f.discard(e)
	}
	return nil
}

// Usage is what the tenant stores now, expired but not yet swept objects included: their number and their bytes.
func (f *Files) Usage(_ context.Context, tenant string) (objects int, bytes int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	account := f.index.tenants[tenant]
	if account == nil {
		return 0, 0, nil
	}
	return account.byAge.Len(), account.bytes, nil
}

// Stats is a snapshot of the store's counters.
func (f *Files) Stats() Stats {
	f.mu.Lock()
	s := Stats{Objects: len(f.index.objects), Bytes: f.index.bytes}
	f.mu.Unlock()
	s.Hits, s.MemoryHits, s.Misses = f.hits.Load(), f.memoryHits.Load(), f.misses.Load()
	s.Damaged, s.Expired, s.Evicted = f.damaged.Load(), f.expired.Load(), f.evicted.Load()
	return s
}

// Close waits for the operations under way, stops the sweeper and lets the directory go. Later calls get ErrClosed.
func (f *Files) Close() error {
	f.gate.Lock()
	defer f.gate.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	close(f.stop)
	<-f.swept
	f.cache.close()
	return f.backend.close()
}
