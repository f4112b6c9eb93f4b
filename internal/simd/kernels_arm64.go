//go:build !purego

package simd

// gram4NEON adds to s[r*ld+j] the dot product of row r of a (4 rows) and row j of b (4*blocks rows).
// Rows are stride floats long, a multiple of 4.
//
//go:noescape
func gram4NEON(s *float32, ld int, a *float32, b *float32, blocks int, stride int)

// mirror4NEON transposes 4x4 blocks: those of src lie below each other, those of dst side by side. Rows of both are ld long.
//
//go:noescape
func mirror4NEON(dst *float32, src *float32, ld int, blocks int)

// quantizeNEON writes floor(scale*src), saturated, to dst for n elements, a multiple of 8, and returns the sum of src.
//
//go:noescape
func quantizeNEON(dst *int16, src *float32, scale float32, n int) float64

// dotNEON is the dot product of n floats, a multiple of 16.
//
//go:noescape
func dotNEON(a *float32, b *float32, n int) float32

// axpyNEON adds w*src to dst, n floats, a multiple of 8.
//
//go:noescape
func axpyNEON(dst *float32, src *float32, w float32, n int)

// axpy2NEON adds w*src to dst and v*src to sum, n floats, a multiple of 8.
//
//go:noescape
func axpy2NEON(dst *float32, sum *float32, src *float32, w float32, v float32, n int)

// scaleNEON multiplies n floats, a multiple of 8, by w.
//
//go:noescape
func scaleNEON(x *float32, w float32, n int)

// scaleAddNEON multiplies x by w and adds the products to sum, n floats, a multiple of 8.
//
//go:noescape
func scaleAddNEON(x *float32, sum *float32, w float32, n int)

// unrotateNEON turns n pairs (lo, hi), a multiple of 8, back by the angles given.
//
//go:noescape
func unrotateNEON(lo *float32, hi *float32, cos *float32, sin *float32, n int)

// rotateByNEON turns n pairs (lo, hi), a multiple of 4, by the angles given plus delta*freq and multiplies them by scale.
//
//go:noescape
func rotateByNEON(lo *float32, hi *float32, cos *float32, sin *float32, freq *float32, delta float32, scale float32, n int)

// The loops over 16-bit floats take n elements, a multiple of 8.

//go:noescape
func widenBF16NEON(dst *float32, src *byte, n int)

//go:noescape
func widenF16NEON(dst *float32, src *byte, n int)

// narrowBF16NEON rounds to nearest even; beyond the largest finite value it saturates.
//
//go:noescape
func narrowBF16NEON(dst *byte, src *float32, n int)

// narrowF16NEON rounds to nearest even; beyond the largest finite value it saturates.
//
//go:noescape
func narrowF16NEON(dst *byte, src *float32, n int)

//go:noescape
func axpyBF16NEON(dst *float32, src *byte, w float32, n int)

//go:noescape
func axpyF16NEON(dst *float32, src *byte, w float32, n int)

// unrotateBF16NEON widens a row of 2*half elements, turns its pairs (i, half+i) back and returns the sum of their squares.
// half is a multiple of 8.
//
//go:noescape
func unrotateBF16NEON(dst *float32, src *byte, cos *float32, sin *float32, half int) float32

// unrotateF16NEON is unrotateBF16NEON for float16.
//
//go:noescape
func unrotateF16NEON(dst *float32, src *byte, cos *float32, sin *float32, half int) float32

// maxAbsNEON is the largest absolute value of n floats, a multiple of 8.
//
//go:noescape
func maxAbsNEON(x *float32, n int) float32

// narrowE4M3NEON rounds w*src to 8 bits, n elements, a multiple of 8; beyond the largest finite value it saturates.
//
//go:noescape
func narrowE4M3NEON(dst *byte, src *float32, w float32, n int)

// axpy4NEON adds to dst four rows of n floats, a multiple of 8, each times its weight.
//
//go:noescape
func axpy4NEON(dst *float32, rows *float32, stride int, w *float32, n int)

// expSumNEON replaces n floats, a multiple of 4 and at most top, by exp(x-top) and returns their sum.
//
//go:noescape
func expSumNEON(x *float32, top float32, n int) float32

//go:noescape
func unrotateAddBF16NEON(key *float32, unit *float32, src *byte, cos *float32, sin *float32, kw float32, uw float32, half int)

//go:noescape
func unrotateDotBF16NEON(direction *float32, src *byte, cos *float32, sin *float32, half int) float32

//go:noescape
func unrotateAddF16NEON(key *float32, unit *float32, src *byte, cos *float32, sin *float32, kw float32, uw float32, half int)

//go:noescape
func unrotateDotF16NEON(direction *float32, src *byte, cos *float32, sin *float32, half int) float32
