package gpu

import "github.com/semproxy/semproxy/gpu/cuda"

// alignment of every array, in bytes: what the widest copy of a warp takes.
const alignment = 256

// aligned is what an array of n bytes takes: there is always a gap behind it, so that a kernel that reads past one array does
// not meet the next, and the address sanitizer can tell.
func aligned(n int) int { return (n+alignment-1)&^(alignment-1) + alignment }

// fence, which tests set, is told where an array of n bytes begins and how many bytes it takes with the gap.
var fence func(at cuda.Pointer, n, taken int)

// arena hands out one piece of a device's memory from its start. host, where there is one, is pinned memory with the same
// layout.
type arena struct {
	base       cuda.Pointer
	host       []byte
	size, used int
}

// take reserves n bytes; the caller has made sure that they fit.
func (a *arena) take(n int) (p cuda.Pointer, host []byte) {
	at := a.used
	a.used += aligned(n)
	if a.used > a.size {
		panic("gpu: an arena is smaller than what was reserved in it")
	}
	if a.host != nil {
		host = a.host[at : at+n : at+n]
	}
	if fence != nil {
		fence(a.base+cuda.Pointer(at), n, aligned(n))
	}
	return a.base + cuda.Pointer(at), host
}

func (a *arena) fits(n int) bool { return a.used+n <= a.size }

// sizer adds up what arrays take in an arena.
type sizer int

func (s *sizer) add(n, elem int) { *s += sizer(aligned(n * elem)) }
