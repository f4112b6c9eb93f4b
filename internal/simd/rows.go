package simd

import (
	"math"
	"sync"
)

// Lanes is the multiple that the columns of Mul, MulAdd, MaxRows and ExpRows keep.
const Lanes = 32

// MulRows is the multiple that the rows of Mul and MulAdd keep.
const MulRows = 8

// Wide is a row of d floats, padded to whole Lanes.
func Wide(d int) int { return (d + Lanes - 1) / Lanes * Lanes }

// expLeast is the exponent below which ExpRows does not go: its square is still a normal number.
const expLeast = -40

// Mul by MulAdd.
func mulBy(add func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int)) func(c []float32, ldc int,
	a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	return func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
		for i := range m {
			clear(c[i*ldc : i*ldc+n])
		}
		add(c, ldc, a, ra, ca, b, ldb, m, k, n)
	}
}

func mulAdd(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	mulAddBy(axpy4, axpy, c, ldc, a, ra, ca, b, ldb, m, k, n)
}

var weights = sync.Pool{New: func() any { return new([4]float32) }}

// mulAddBy adds four rows of b at a time.
func mulAddBy(four func(dst, rows []float32, stride int, w *[4]float32), one func(dst, src []float32, w float32), c []float32, ldc int,
	a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	w, _ := weights.Get().(*[4]float32) // what a function value is given lies on the heap
	defer weights.Put(w)
	for i := range m {
		row, j := c[i*ldc:i*ldc+n], 0
		for ; j+4 <= k; j += 4 {
			at := i*ra + j*ca
			*w = [4]float32{a[at], a[at+ca], a[at+2*ca], a[at+3*ca]}
			four(row, b[j*ldb:], ldb, w)
		}
		for ; j < k; j++ {
			one(row, b[j*ldb:j*ldb+n], a[i*ra+j*ca])
		}
	}
}

func maxRows(top, x []float32) {
	for ; len(x) >= len(top) && len(top) > 0; x = x[len(top):] {
		for i, t := range top {
			top[i] = max(t, x[i])
		}
	}
}

func expRows(x, top, sum, squares []float32) {
	for n := len(top); len(x) >= n && n > 0; x = x[n:] {
		for i, t := range top {
			e := float32(math.Exp(float64(max(x[i]-t, expLeast))))
			x[i] = e
			sum[i] += e
			squares[i] += e * e
		}
	}
}

func rowDots(dst, x []float32, sx int, y []float32, sy, d int) { rowDotsBy(dot, dst, x, sx, y, sy, d) }

func rowDotsBy(dot func(a, b []float32) float32, dst, x []float32, sx int, y []float32, sy, d int) {
	for r := range dst {
		dst[r] = dot(x[r*sx:r*sx+d], y[r*sy:r*sy+d])
	}
}
