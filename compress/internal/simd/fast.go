//go:build !purego && (amd64 || arm64)

package simd

// need panics here, in Go, rather than let assembly read past the end.
func need(x []float32, n int) { _ = x[n-1] }

// halfAssembly holds the loops over one kind of 16-bit float. They take lengths that are multiples of 8.
type halfAssembly struct {
	widen       func(dst *float32, src *byte, n int)
	narrow      func(dst *byte, src *float32, n int)
	unrotate    func(dst *float32, src *byte, cos, sin *float32, half int) float32
	unrotateAdd func(key, unit *float32, src *byte, cos, sin *float32, kw, uw float32, half int)
	unrotateDot func(direction *float32, src *byte, cos, sin *float32, half int) float32
	axpy        func(dst *float32, src *byte, w float32, n int)
}

// fastHalf takes the elements by eight in assembly and what is left in Go.
func fastHalf(slow Half, fast halfAssembly) Half {
	// turns checks a row to be turned, of 2*len(cos) elements, and reports whether assembly takes it.
	turns := func(src []byte, cos, sin []float32) bool {
		n := len(cos)
		if n == 0 || n%8 != 0 {
			return false
		}
		need(sin, n)
		_ = src[4*n-1]
		return true
	}
	return Half{
		Widen: func(dst []float32, src []byte) {
			n := len(dst) &^ 7
			if n > 0 {
				_ = src[2*len(dst)-1]
				fast.widen(&dst[0], &src[0], n)
			}
			slow.Widen(dst[n:], src[2*n:])
		},
		Narrow: func(dst []byte, src []float32) {
			n := len(src) &^ 7
			if n > 0 {
				_ = dst[2*len(src)-1]
				fast.narrow(&dst[0], &src[0], n)
			}
			slow.Narrow(dst[2*n:], src[n:])
		},
		Unrotate: func(dst []float32, src []byte, cos, sin []float32) float32 {
			if !turns(src, cos, sin) {
				return slow.Unrotate(dst, src, cos, sin)
			}
			need(dst, 2*len(cos))
			return fast.unrotate(&dst[0], &src[0], &cos[0], &sin[0], len(cos))
		},
		UnrotateAdd: func(key, unit []float32, src []byte, cos, sin []float32, kw, uw float32) {
			if !turns(src, cos, sin) {
				slow.UnrotateAdd(key, unit, src, cos, sin, kw, uw)
				return
			}
			need(key, 2*len(cos))
			need(unit, 2*len(cos))
			fast.unrotateAdd(&key[0], &unit[0], &src[0], &cos[0], &sin[0], kw, uw, len(cos))
		},
		UnrotateDot: func(direction []float32, src []byte, cos, sin []float32) float32 {
			if !turns(src, cos, sin) {
				return slow.UnrotateDot(direction, src, cos, sin)
			}
			need(direction, 2*len(cos))
			return fast.unrotateDot(&direction[0], &src[0], &cos[0], &sin[0], len(cos))
		},
		Axpy: func(dst []float32, src []byte, w float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_ = src[2*len(dst)-1]
				fast.axpy(&dst[0], &src[0], w, n)
			}
			slow.Axpy(dst[n:], src[2*n:], w)
		},
	}
}
