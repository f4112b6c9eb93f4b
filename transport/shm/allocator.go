package shm

import (
	"slices"
	"sync"
)

// allocator hands out parts of a region. First fit, so that a sender that waits for its replies touches few pages of memory.
type allocator struct {
	mu   sync.Mutex
	free []span // by offset; neighbours are joined
	out  int    // parts that were not given back
}

type span struct{ offset, length int64 }

// align is the least part, so that blocks do not share a page of memory.
const align = 4096

func newAllocator(size int64) *allocator {
	return &allocator{free: []span{{0, size &^ (align - 1)}}}
}

// take returns a part of at least n bytes, or false.
func (a *allocator) take(n int64) (span, bool) {
	if n <= 0 || n > 1<<62 {
		return span{}, false
	}
	n = (n + align - 1) &^ (align - 1)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, f := range a.free {
		if f.length < n {
			continue
		}
		a.out++
		if f.length == n {
			a.free = slices.Delete(a.free, i, i+1)
		} else {
			a.free[i] = span{f.offset + n, f.length - n}
		}
		return span{f.offset, n}, true
	}
	return span{}, false
}

// give takes back a part; idle says that none is out.
func (a *allocator) give(s span) (idle bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, _ := slices.BinarySearchFunc(a.free, s, func(f, s span) int {
		switch {
		case f.offset < s.offset:
			return -1
		case f.offset > s.offset:
			return 1
		}
		return 0
	})
	a.free = slices.Insert(a.free, i, s)
	if i+1 < len(a.free) && s.offset+s.length == a.free[i+1].offset {
		a.free[i].length += a.free[i+1].length
		a.free = slices.Delete(a.free, i+1, i+2)
	}
	if i > 0 && a.free[i-1].offset+a.free[i-1].length == a.free[i].offset {
		a.free[i-1].length += a.free[i].length
		a.free = slices.Delete(a.free, i, i+1)
	}
	a.out--
	return a.out == 0
}
