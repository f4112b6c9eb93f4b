//go:build !purego && (amd64 || arm64)

package simd

// need panics here, in Go, rather than let assembly read past the end.
func need(x []float32, n int) { _ = x[n-1] }

// fastHalf takes the elements by eight in assembly and what is left in Go.
func fastHalf(slow Half, widen func(*float32, *byte, int), narrow func(*byte, *float32, int),
	unrotate func(dst *float32, src *byte, cos, sin *float32, half int) float32, axpy func(*float32, *byte, float32, int)) Half {
	return Half{
		Widen: func(dst []float32, src []byte) {
			n := len(dst) &^ 7
			if n > 0 {
				_ = src[2*len(dst)-1]
				widen(&dst[0], &src[0], n)
			}
			slow.Widen(dst[n:], src[2*n:])
		},
		Narrow: func(dst []byte, src []float32) {
			n := len(src) &^ 7
			if n > 0 {
				_ = dst[2*len(src)-1]
				narrow(&dst[0], &src[0], n)
			}
			slow.Narrow(dst[2*n:], src[n:])
		},
		Unrotate: func(dst []float32, src []byte, cos, sin []float32) float32 {
			n := len(cos)
			if n == 0 || n%8 != 0 {
				return slow.Unrotate(dst, src, cos, sin)
			}
			need(dst, 2*n)
			need(sin, n)
			_ = src[4*n-1]
			return unrotate(&dst[0], &src[0], &cos[0], &sin[0], n)
		},
		Axpy: func(dst []float32, src []byte, w float32) {
			n := len(dst) &^ 7
			if n > 0 {
				_ = src[2*len(dst)-1]
				axpy(&dst[0], &src[0], w, n)
			}
			slow.Axpy(dst[n:], src[2*n:], w)
		},
	}
}
