package shm

import (
	"math/bits"
	"sync"
)

// buffers are private copies of pages, used again. A class holds buffers of one power of two; how many are out at a time
// is bounded by the bytes that admission lets in.
type buffers struct{ classes [48]sync.Pool }

// smallest is the class of the least buffer: 1<<smallest bytes.
const smallest = 12

func class(n int64) int { return max(bits.Len64(uint64(max(n, 1)-1)), smallest) - smallest }

// get returns n bytes whose content is not defined.
func (b *buffers) get(n int64) *[]byte {
	c := class(n)
	if p, ok := b.classes[c].Get().(*[]byte); ok {
		*p = (*p)[:n]
		return p
	}
	buf := make([]byte, n, int64(1)<<(c+smallest))
	return &buf
}

// put takes back what get returned.
func (b *buffers) put(p *[]byte) { b.classes[class(int64(cap(*p)))].Put(p) }
