package store

import (
	"context"
	"fmt"
	"time"
)

// enter begins an operation: on success the caller holds gate for reading.
func (f *Files) enter(ctx context.Context, key Key, op string) error {
	if err := key.Validate(); err != nil {
		return fmt.Errorf("%s object: %w", op, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s object: %w", op, err)
	}
	f.gate.RLock()
	if f.closed {
		f.gate.RUnlock()
		return fmt.Errorf("%s object: %w", op, ErrClosed)
	}
	return nil
}

// lookup returns the current, unexpired version of key, or nil.
func (f *Files) lookup(key Key) *entry {
	f.mu.Lock()
	e := f.index.objects[key]
	if e == nil || !e.expired(f.opt.Clock().UnixNano()) {
		f.mu.Unlock()
		return e
	}
	f.index.remove(e)
	f.mu.Unlock()
	f.expired.Add(1)
	f.discard(e)
	return nil
}

// remember caches a blob that was read, unless its version is gone by now.
func (f *Files) remember(e *entry, blob []byte) {
	if !f.cache.fits(len(blob)) {
		return
	}
	f.cache.put(e.seq, blob)
	f.mu.Lock()
	current := f.index.objects[e.key] == e
	f.mu.Unlock()
	if !current {
		f.cache.drop(e.seq)
	}
}

// forget takes a version out of the account; it reports whether it was the current one.
func (f *Files) forget(e *entry) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index.remove(e)
}

// discard removes what is left of a version that is out of the account already. A file that cannot be removed is not
// an error of the operation that made it superfluous; the next open finds it again.
func (f *Files) discard(e *entry) {
	f.cache.drop(e.seq)
	f.mu.Lock()
	last := f.index.tenants[e.key.Tenant] == nil
	f.mu.Unlock()
	_ = f.backend.remove(e, last)
}

// trim keeps the tenant's quota and the store's limits; keep is spared.
func (f *Files) trim(tenant string, keep *entry, quota int64) {
	f.mu.Lock()
	gone := f.index.evict(tenant, keep, quota, f.opt.MaxBytes, f.opt.MaxObjects)
	f.mu.Unlock()
	f.discardEvicted(gone)
}

func (f *Files) discardEvicted(gone []*entry) {
	f.evicted.Add(uint64(len(gone)))
	for _, e := range gone {
		f.discard(e)
	}
}

// sweep removes what has expired.
func (f *Files) sweep() {
	f.mu.Lock()
	gone := f.index.expire(f.opt.Clock().UnixNano())
	f.mu.Unlock()
	f.expired.Add(uint64(len(gone)))
	for _, e := range gone {
		f.discard(e)
	}
}

// sweeper sweeps until Close.
func (f *Files) sweeper() {
	defer close(f.swept)
	tick := time.NewTicker(f.opt.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
			f.sweep()
		}
	}
}

// roomTries is how often a put makes room on a full disk.
const roomTries = 8

// makeRoom removes the oldest objects, the tenant's own first, because the disk is full though the limits are not reached: it
// is smaller, or others use it. Twice the size goes, since files need more than their bytes. It reports false when there is nothing to remove.
func (f *Files) makeRoom(key Key, size int64) bool {
	var gone []*entry
	f.mu.Lock()
	for freed := int64(0); freed < 2*size; {
		victim := (*entry)(nil)
		if account := f.index.tenants[key.Tenant]; account != nil {
			victim = oldest(account.byAge, f.index.objects[key])
		}
		if victim == nil {
			victim = oldest(f.index.byAge, f.index.objects[key])
		}
		if victim == nil {
			break
		}
		f.index.remove(victim)
		gone = append(gone, victim)
		freed += victim.fileBytes()
	}
	f.mu.Unlock()
	f.discardEvicted(gone)
	return len(gone) > 0
}
