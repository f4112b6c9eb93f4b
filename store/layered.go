package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// LayeredOptions configure a [Layered] store.
type LayeredOptions struct {
	// MemoryBytes bounds what is kept in memory. 0: 64 MiB.
	MemoryBytes int64
	// Optional makes Put succeed, in memory alone, while the store below is unavailable. Such an object lives until the
	// memory is needed, and nobody else sees it.
	Optional bool
}

// LayeredStats are counters since the store was opened.
type LayeredStats struct {
	MemoryHits uint64 // Gets that needed no bytes from the store below
	AwayHits   uint64 // those of them that the store below did not confirm, because it was unavailable
	Kept       uint64 // Puts that went to memory alone
}

// Layered keeps recently used objects of a slower store in memory. Memory never outlives the truth: each Get asks the
// store below, cheaply, whether the version is still the current one, so what another process has deleted, replaced or
// evicted is not served. Only while the store below is unavailable are objects served unasked, until they expire.
type Layered struct {
	below Store
	opt   LayeredOptions
	cache *otter.Cache[Key, *held]

	memoryHits, awayHits, kept atomic.Uint64
}

var _ Store = (*Layered)(nil)

// held is an object in memory. Its blob is shared with every reader.
type held struct {
	blob  []byte
	info  Info
	alone bool // the store below has never had it
}

// NewLayered puts memory in front of below, which belongs to the result from then on.
func NewLayered(below Store, opt LayeredOptions) (*Layered, error) {
	if opt.MemoryBytes <= 0 {
		opt.MemoryBytes = 64 << 20
	}
	cache, err := newCache[Key](opt.MemoryBytes, func(h *held) int { return len(h.blob) })
	if err != nil {
		return nil, err
	}
	return &Layered{below: below, opt: opt, cache: cache}, nil
}

// Put stores the blob below. It is kept in memory when it is first read.
func (l *Layered) Put(ctx context.Context, key Key, blob []byte, opt PutOptions) error {
	err := l.below.Put(ctx, key, blob, opt)
	switch {
	case err == nil:
		if h, ok := l.cache.GetIfPresent(key); ok && h.alone {
			l.cache.Invalidate(key)
		}
	case l.opt.Optional && errors.Is(err, ErrUnavailable) && fitsCache(len(blob), l.opt.MemoryBytes):
		h := &held{blob: bytes.Clone(blob), info: Info{Size: int64(len(blob)), Created: time.Now(), Version: "memory"}, alone: true}
		if opt.TTL > 0 {
			h.info.Expires = h.info.Created.Add(opt.TTL)
		}
		l.cache.Set(key, h)
		l.kept.Add(1)
		return nil
	}
	return err
}

// Get returns the object's bytes, or ErrNotFound. They are shared and must not be written to.
func (l *Layered) Get(ctx context.Context, key Key) ([]byte, error) {
	blob, _, err := l.Fetch(ctx, key)
	return blob, err
}

// Fetch is Get and Stat of one version.
func (l *Layered) Fetch(ctx context.Context, key Key) ([]byte, Info, error) {
	if h, ok := l.cache.GetIfPresent(key); ok {
		info, err := l.below.Stat(ctx, key)
		if info, ok, err = l.confirm(key, h, info, err); err != nil {
			return nil, Info{}, fmt.Errorf("get object: %w", err)
		}
		if ok {
			l.memoryHits.Add(1)
			return h.blob, info, nil
		}
	}
	blob, info, err := l.below.Fetch(ctx, key)
	if err == nil && fitsCache(len(blob), l.opt.MemoryBytes) {
		l.cache.Set(key, &held{blob: blob, info: info})
	}
	return blob, info, err
}

// confirm holds what is in memory against what Stat of the store below said: ok when it may be served, an error when
// that is the answer, neither when it is out of date.
func (l *Layered) confirm(key Key, h *held, info Info, err error) (_ Info, ok bool, _ error) {
	fresh := h.info.Expires.IsZero() || time.Now().Before(h.info.Expires)
	switch {
	case err == nil && info.Version == h.info.Version:
		return info, true, nil
	case errors.Is(err, ErrUnavailable) && fresh:
		l.awayHits.Add(1)
		return h.info, true, nil
	case errors.Is(err, ErrNotFound) && h.alone && fresh:
		return h.info, true, nil
	case err == nil:
		return Info{}, false, nil
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnavailable):
		l.cache.Invalidate(key)
	}
	return Info{}, false, err
}

// Stat describes the object, or returns ErrNotFound.
func (l *Layered) Stat(ctx context.Context, key Key) (Info, error) {
	info, err := l.below.Stat(ctx, key)
	if err == nil {
		return info, nil
	}
	if h, ok := l.cache.GetIfPresent(key); ok {
		if info, ok, _ := l.confirm(key, h, info, err); ok {
			return info, nil
		}
	}
	return Info{}, err
}

// Delete removes the object, from memory also when the store below fails.
func (l *Layered) Delete(ctx context.Context, key Key) error {
	l.cache.Invalidate(key)
	return l.below.Delete(ctx, key)
}

// Usage is that of the store below.
func (l *Layered) Usage(ctx context.Context, tenant string) (objects int, bytes int64, err error) {
	return l.below.Usage(ctx, tenant)
}

// Stats is a snapshot of the counters.
func (l *Layered) Stats() LayeredStats {
	return LayeredStats{MemoryHits: l.memoryHits.Load(), AwayHits: l.awayHits.Load(), Kept: l.kept.Load()}
}

// Close closes the store below and forgets everything.
func (l *Layered) Close() error {
	err := l.below.Close()
	l.cache.InvalidateAll()
	l.cache.StopAllGoroutines()
	return err
}
