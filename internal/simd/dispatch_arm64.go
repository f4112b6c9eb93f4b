//go:build !purego

package simd

import "unsafe"

// Every arm64 processor that Go runs on has NEON. What the set does not replace stays plain Go: counting, a walk over few
// candidates.
var (
	neon = neonKernels()
	all  = []*Kernels{&generic, &neon}
)

func neonKernels() Kernels {
	k := generic
	k.Name = "neon"
	k.Gram, k.Dots, k.Mirror, k.Quantize = gramNEON, dotsNEON, mirrorFast, quantizeFast
	k.Dot, k.Axpy, k.Axpy2, k.Scale, k.ScaleAdd = dotFast, axpyFast, axpy2Fast, scaleFast, scaleAddFast
	k.Unrotate, k.RotateBy = unrotateFast, rotateByFast
	k.DotsOf, k.Axpy4 = dotsOfFast, axpy4Fast
	k.Mul, k.MulAdd, k.ExpRows, k.RowDots = mulBy(mulAddNEON), mulAddNEON, expRowsFast, rowDotsFast
	k.MaxAbs, k.NarrowE4M3 = maxAbsFast, narrowE4M3Fast
	k.BF16 = fastHalf(genericBF16, halfAssembly{widen: widenBF16NEON, narrow: narrowBF16NEON, unrotate: unrotateRows(unrotateBF16NEON),
		unrotateAdd: unrotateAddBF16NEON, unrotateDot: unrotateDotRows(unrotateDotBF16NEON), axpy: axpyBF16NEON})
	k.F16 = fastHalf(genericF16, halfAssembly{widen: widenF16NEON, narrow: narrowF16NEON, unrotate: unrotateRows(unrotateF16NEON),
		unrotateAdd: unrotateAddF16NEON, unrotateDot: unrotateDotRows(unrotateDotF16NEON), axpy: axpyF16NEON})
	return k
}

func gramNEON(s []float32, ld int, u []float32, n, stride int) {
	n4 := (n + 3) &^ 3
	need(s, n4*ld)
	need(u, n4*stride)
	for i := 0; i < n4; i += 4 {
		gram4NEON(&s[i*ld+i], ld, &u[i*stride], &u[i*stride], (n4-i)/4, stride)
	}
}

func dotsNEON(s []float32, ld int, a, b []float32, na, nb, stride int) {
	if na == 0 || nb == 0 {
		return
	}
	need(s, (na-1)*ld+nb)
	need(a, na*stride)
	need(b, nb*stride)
	for i := 0; i < na; i += 4 {
		gram4NEON(&s[i*ld], ld, &a[i*stride], &b[0], nb/4, stride)
	}
}

func dotFast(a, b []float32) float32 {
	n := len(a) &^ 15
	if n == 0 {
		return dot(a, b)
	}
	need(b, len(a))
	s := dotNEON(&a[0], &b[0], n)
	if n < len(a) {
		s += dot(a[n:], b[n:])
	}
	return s
}

func axpyFast(dst, src []float32, w float32) {
	n := len(dst) &^ 7
	if n > 0 {
		need(src, n)
		axpyNEON(&dst[0], &src[0], w, n)
	}
	axpy(dst[n:], src[n:], w)
}

func scaleFast(x []float32, w float32) {
	n := len(x) &^ 7
	if n > 0 {
		scaleNEON(&x[0], w, n)
	}
	scale(x[n:], w)
}

func unrotateFast(lo, hi, cos, sin []float32) {
	n := len(lo) &^ 7
	if n > 0 {
		need(hi, len(lo))
		need(cos, len(lo))
		need(sin, len(lo))
		unrotateNEON(&lo[0], &hi[0], &cos[0], &sin[0], n)
	}
	unrotate(lo[n:], hi[n:], cos[n:], sin[n:])
}

func scaleAddFast(x []float32, stride int, sum, w []float32) {
	n, d := len(w), len(sum)
	if n == 0 || d == 0 || d%8 != 0 {
		scaleAdd(x, stride, sum, w)
		return
	}
	need(x, (n-1)*stride+d)
	for r, by := range w {
		scaleAddNEON(&x[r*stride], &sum[0], by, d)
	}
}

func axpy2Fast(dst, sum, src []float32, w, v float32) {
	n := len(src) &^ 7
	if n > 0 {
		need(dst, len(src))
		need(sum, len(src))
		axpy2NEON(&dst[0], &sum[0], &src[0], w, v, n)
	}
	axpy2(dst[n:], sum[n:], src[n:], w, v)
}

func rotateByFast(lo, hi, cos, sin, freq []float32, delta, scale float32) {
	n := len(lo) &^ 3
	if n > 0 {
		need(hi, len(lo))
		need(cos, len(lo))
		need(sin, len(lo))
		need(freq, len(lo))
		rotateByNEON(&lo[0], &hi[0], &cos[0], &sin[0], &freq[0], delta, scale, n)
	}
	rotateBy(lo[n:], hi[n:], cos[n:], sin[n:], freq[n:], delta, scale)
}

func mirrorFast(s []float32, ld, n int) {
	if n <= 4 {
		return
	}
	need(s, (n-1)*ld+n)
	for i := 4; i < n; i += 4 {
		mirror4NEON(&s[i*ld], &s[i], ld, i/4)
	}
}

func quantizeFast(dst []int16, src []float32, scale float32, n, ld int) float64 {
	m, sum := n&^7, 0.0
	if m > 0 {
		need(src, n)
		_ = dst[ld-1]
		sum = quantizeNEON(&dst[0], &src[0], scale, m)
	}
	return sum + quantize(dst[m:], src[m:], scale, n-m, ld-m)
}

func maxAbsFast(x []float32) float32 {
	n := len(x) &^ 7
	if n == 0 {
		return maxAbs(x)
	}
	return max(maxAbsNEON(&x[0], n), maxAbs(x[n:]))
}

func narrowE4M3Fast(dst []byte, src []float32, w float32) {
	n := len(src) &^ 7
	if n > 0 {
		_ = dst[len(src)-1]
		narrowE4M3NEON(&dst[0], &src[0], w, n)
	}
	narrowE4M3(dst[n:], src[n:], w)
}

func dotsOfFast(dst, q, rows []float32, index []uint16, stride int) {
	for k, i := range index {
		dst[k] = dotFast(q[:stride], rows[int(i)*stride:(int(i)+1)*stride])
	}
}

func axpy4Fast(dst, rows []float32, stride int, w *[4]float32) {
	n := len(dst) &^ 7
	if n > 0 {
		need(rows, 3*stride+len(dst))
		axpy4NEON(&dst[0], &rows[0], stride, &w[0], n)
	}
	if n < len(dst) {
		axpy4(dst[n:], rows[n:], stride, w)
	}
}

func mulAddNEON(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	mulAddBy(axpy4Fast, axpyFast, c, ldc, a, ra, ca, b, ldb, m, k, n)
}

// expRowsFast goes by rows: the assembly has one top for all of x.
func expRowsFast(x, top, sum, squares []float32) {
	n := len(top) &^ 3
	if n != len(top) || n == 0 {
		expRows(x, top, sum, squares)
		return
	}
	for ; len(x) >= n; x = x[n:] {
		row := x[:n]
		axpyFast(row, top, -1)
		expSumNEON(&row[0], 0, n)
		axpyFast(sum, row, 1)
		for i, e := range row {
			squares[i] += e * e
		}
	}
}

func rowDotsFast(dst, x []float32, sx int, y []float32, sy, d int) {
	rowDotsBy(dotFast, dst, x, sx, y, sy, d)
}

// unrotateRows and unrotateDotRows go over the rows in Go; the assembly takes one.
func unrotateRows(row func(dst *float32, src *byte, cos, sin *float32, half int) float32) func(dst *float32, stride int,
	squares *float32, src *byte, cos, sin *float32, at *int32, n, half int) {
	return func(dst *float32, stride int, squares *float32, src *byte, cos, sin *float32, at *int32, n, half int) {
		rows, ss := unsafe.Slice(dst, (n-1)*stride+2*half), unsafe.Slice(squares, n)
		from := unsafe.Slice(src, 4*half*n)
		for r, i := range unsafe.Slice(at, n) {
			c, s := unsafe.Add(unsafe.Pointer(cos), 4*half*int(i)), unsafe.Add(unsafe.Pointer(sin), 4*half*int(i))
			ss[r] = row(&rows[r*stride], &from[4*half*r], (*float32)(c), (*float32)(s), half)
		}
	}
}

func unrotateDotRows(row func(direction *float32, src *byte, cos, sin *float32, half int) float32) func(dst, direction *float32,
	src *byte, cos, sin *float32, at *int32, n, half int) {
	return func(dst, direction *float32, src *byte, cos, sin *float32, at *int32, n, half int) {
		out, from := unsafe.Slice(dst, n), unsafe.Slice(src, 4*half*n)
		for r, i := range unsafe.Slice(at, n) {
			c, s := unsafe.Add(unsafe.Pointer(cos), 4*half*int(i)), unsafe.Add(unsafe.Pointer(sin), 4*half*int(i))
			out[r] = row(direction, &from[4*half*r], (*float32)(c), (*float32)(s), half)
		}
	}
}
