package store

import (
	"bytes"
	"fmt"
	"math"

	"github.com/maypok86/otter/v2"
)

// cacheOverhead is what one cached object costs beside its bytes, so that many tiny objects are bounded as well.
const cacheOverhead = 256

// newCache makes a cache of at most maxBytes, as size says, that keeps what is used recently and often.
func newCache[K comparable, V any](maxBytes int64, size func(V) int) (*otter.Cache[K, V], error) {
	cache, err := otter.New(&otter.Options[K, V]{
		MaximumWeight: uint64(maxBytes),
		Weigher:       func(_ K, v V) uint32 { return uint32(size(v) + cacheOverhead) },
		// On the caller's goroutine: no goroutine without an owner. No callback of ours runs under the cache's locks.
		Executor: func(task func()) { task() },
	})
	if err != nil {
		return nil, fmt.Errorf("create memory cache: %w", err)
	}
	return cache, nil
}

// fitsCache reports whether a cache of maxBytes may hold an object of that size.
func fitsCache(size int, maxBytes int64) bool {
	return int64(size)+cacheOverhead <= maxBytes && size <= math.MaxUint32-cacheOverhead
}

// memCache keeps the recently and often used blobs, bounded by bytes. It is keyed by version, so a stale blob is
// never served: nobody asks for its number again. A nil *memCache caches nothing.
type memCache struct {
	otter *otter.Cache[uint64, []byte]
	max   int64
}

func newMemCache(maxBytes int64) (*memCache, error) {
	if maxBytes <= 0 {
		return nil, nil //nolint:nilnil // a nil cache is a cache of nothing
	}
	cache, err := newCache[uint64](maxBytes, func(blob []byte) int { return len(blob) })
	if err != nil {
		return nil, err
	}
	return &memCache{otter: cache, max: maxBytes}, nil
}

func (c *memCache) fits(size int) bool { return c != nil && fitsCache(size, c.max) }

func (c *memCache) get(seq uint64) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	return c.otter.GetIfPresent(seq)
}

// put shares blob with every later reader.
func (c *memCache) put(seq uint64, blob []byte) {
	if c.fits(len(blob)) {
		c.otter.Set(seq, blob)
	}
}

// putCopy leaves blob to its owner.
func (c *memCache) putCopy(seq uint64, blob []byte) {
	if c.fits(len(blob)) {
		c.otter.Set(seq, bytes.Clone(blob))
	}
}

func (c *memCache) drop(seq uint64) {
	if c != nil {
		c.otter.Invalidate(seq)
	}
}

func (c *memCache) close() {
	if c != nil {
		c.otter.InvalidateAll()
		c.otter.StopAllGoroutines()
	}
}
