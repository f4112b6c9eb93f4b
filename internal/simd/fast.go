//go:build !purego && (amd64 || arm64)

package simd

// need panics here, in Go, rather than let assembly read past the end.
func need(x []float32, n int) { _ = x[n-1] }

// halfAssembly holds the loops over one kind of 16-bit float. They take lengths that are multiples of 8.
type halfAssembly struct {
	widen       func(dst *float32, src *byte, n int)
	narrow      func(dst *byte, src *float32, n int)
	unrotate    func(dst *float32, stride int, squares *float32, src *byte, cos, sin *float32, at *int32, n, half int)
	unrotateDot func(dst, direction *float32, src *byte, cos, sin *float32, at *int32, n, half int)
	unrotateAdd func(key, unit *float32, src *byte, cos, sin *float32, kw, uw float32, half int)
	axpy        func(dst *float32, src *byte, w float32, n int)
}

// fastHalf takes the elements by eight in assembly and what is left in Go.
func fastHalf(slow Half, fast halfAssembly) Half {
	// turns checks rows to be turned and reports whether assembly takes them. It trusts that at names rows of the angles.
	turns := func(src []byte, angles Angles, at []int32) bool {
		if angles.Half == 0 || angles.Half%8 != 0 || len(at) == 0 {
			return false
		}
		_ = src[4*angles.Half*len(at)-1]
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
		Unrotate: func(dst []float32, stride int, squares []float32, src []byte, angles Angles, at []int32) {
			if !turns(src, angles, at) {
				slow.Unrotate(dst, stride, squares, src, angles, at)
				return
			}
			n := len(at)
			need(dst, (n-1)*stride+2*angles.Half)
			need(squares, n)
			fast.unrotate(&dst[0], stride, &squares[0], &src[0], &angles.Cos[0], &angles.Sin[0], &at[0], n, angles.Half)
		},
		UnrotateDot: func(dst, direction []float32, src []byte, angles Angles, at []int32) {
			if !turns(src, angles, at) {
				slow.UnrotateDot(dst, direction, src, angles, at)
				return
			}
			n := len(at)
			need(dst, n)
			need(direction, 2*angles.Half)
			fast.unrotateDot(&dst[0], &direction[0], &src[0], &angles.Cos[0], &angles.Sin[0], &at[0], n, angles.Half)
		},
		UnrotateAdd: func(key, unit []float32, src []byte, cos, sin []float32, kw, uw float32) {
			n := len(cos)
			if n == 0 || n%8 != 0 {
				slow.UnrotateAdd(key, unit, src, cos, sin, kw, uw)
				return
			}
			need(sin, n)
			need(key, 2*n)
			need(unit, 2*n)
			_ = src[4*n-1]
			fast.unrotateAdd(&key[0], &unit[0], &src[0], &cos[0], &sin[0], kw, uw, n)
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
