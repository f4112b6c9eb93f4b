//go:build !purego

package simd

import (
	"math"

	"golang.org/x/sys/cpu"
)

var (
	avx2 = Kernels{Name: "avx2", Gram: gramAVX2, Dots: dotsAVX2, DotsOf: dotsOf, Dot: dotFast, Axpy: axpyFast, Axpy4: axpy4Fast, Scale: scaleFast,
		Unrotate: unrotateFast, ScaleAdd: scaleAddFast, Axpy2: axpy2Fast, RotateBy: rotateByFast, Mirror: mirrorFast, Quantize: quantize, Weigh: weighFast, Rank: rank, Reorder: reorder, Count: count,
		Mul: mulAVX2(0), MulAdd: mulAVX2(1), MaxRows: maxRowsFast(maxRowsAVX2, 16), ExpRows: expRowsFast(expRowsAVX2, 8), RowDots: rowDotsFast,
		MaxAbs: maxAbsFast, NarrowE4M3: narrowE4M3Fast, Hadamard: hadamardFast, RoundLoss: roundLossFast, RoundCodes: roundCodesFast, Levels: levelsFast,
		BF16: fastBF16, F16: fastF16}
	avx512 = Kernels{Name: "avx512", Gram: gramAVX512, Dots: dotsAVX512, DotsOf: dotsOfFast, Dot: dotFast, Axpy: axpyFast, Axpy4: axpy4Fast, Scale: scaleFast,
		Unrotate: unrotateFast, ScaleAdd: scaleAddFast, Axpy2: axpy2Fast, RotateBy: rotateByFast, Mirror: mirrorFast, Quantize: quantizeFast, Weigh: weighFast, Rank: rankFast, Reorder: reorderFast, Count: countFast,
		Mul: mulAVX512(0), MulAdd: mulAVX512(1), MaxRows: maxRowsFast(maxRowsAVX512, 32), ExpRows: expRowsFast(expRowsAVX512, 32), RowDots: rowDotsWide,
		MaxAbs: maxAbsFast, NarrowE4M3: narrowE4M3Fast, Hadamard: hadamardFast, RoundLoss: roundLossFast, RoundCodes: roundCodesFast, Levels: levelsFast,
		BF16: fastBF16, F16: fastF16}
	all = detect()
)

func detect() []*Kernels {
	sets := []*Kernels{&generic}
	// Every processor with AVX2 and FMA that was ever sold has F16C; x/sys/cpu does not report it.
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		sets = append(sets, &avx2)
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasBMI1 {
			sets = append(sets, &avx512)
		}
	}
	return sets
}

func gramAVX512(s []float32, ld int, u []float32, n, stride int) {
	n4 := (n + 3) &^ 3
	need(s, n4*ld)
	need(u, n4*stride)
	for i := 0; i < n4; i += 4 {
		gram4AVX512(&s[i*ld+i], ld, &u[i*stride], &u[i*stride], (n4-i)/4, stride)
	}
}

func dotsAVX512(s []float32, ld int, a, b []float32, na, nb, stride int) {
	if na == 0 || nb == 0 {
		return
	}
	need(s, (na-1)*ld+nb)
	need(a, na*stride)
	need(b, nb*stride)
	for i := 0; i < na; i += 4 {
		gram4AVX512(&s[i*ld], ld, &a[i*stride], &b[0], nb/4, stride)
	}
}

// dotsOfFast trusts that the indices are rows.
func dotsOfFast(dst, q, rows []float32, index []uint16, stride int) {
	n := len(index) &^ 3
	if n == 0 {
		return
	}
	need(dst, n)
	need(q, stride)
	dotsOfAVX512(&dst[0], &q[0], &rows[0], &index[0], n/4, stride)
}

func gramAVX2(s []float32, ld int, u []float32, n, stride int) {
	n4 := (n + 3) &^ 3
	need(s, n4*ld)
	need(u, n4*stride)
	for i := 0; i < n4; i += 2 {
		j := i &^ 3
		gram2AVX2(&s[i*ld+j], ld, &u[i*stride], &u[j*stride], (n4-j)/4, stride)
	}
}

func dotsAVX2(s []float32, ld int, a, b []float32, na, nb, stride int) {
	if na == 0 || nb == 0 {
		return
	}
	need(s, (na-1)*ld+nb)
	need(a, na*stride)
	need(b, nb*stride)
	for i := 0; i < na; i += 2 {
		gram2AVX2(&s[i*ld], ld, &a[i*stride], &b[0], nb/4, stride)
	}
}

func dotFast(a, b []float32) float32 {
	n := len(a) &^ 7
	if n == 0 {
		return dot(a, b)
	}
	need(b, len(a))
	s := dotAVX2(&a[0], &b[0], n)
	if n < len(a) {
		s += dot(a[n:], b[n:])
	}
	return s
}

func axpyFast(dst, src []float32, w float32) {
	n := len(dst) &^ 7
	if n > 0 {
		need(src, n)
		axpyAVX2(&dst[0], &src[0], w, n)
	}
	axpy(dst[n:], src[n:], w)
}

func axpy4Fast(dst, rows []float32, stride int, w *[4]float32) {
	n := len(dst) &^ 7
	if n > 0 {
		need(rows, 3*stride+n)
		axpy4AVX2(&dst[0], &rows[0], stride, &w[0], n)
	}
	if n < len(dst) {
		axpy4(dst[n:], rows[n:], stride, w)
	}
}

func scaleFast(x []float32, w float32) {
	n := len(x) &^ 7
	if n > 0 {
		scaleAVX2(&x[0], w, n)
	}
	scale(x[n:], w)
}

func unrotateFast(lo, hi, cos, sin []float32) {
	n := len(lo) &^ 7
	if n > 0 {
		need(hi, len(lo))
		need(cos, len(lo))
		need(sin, len(lo))
		unrotateAVX2(&lo[0], &hi[0], &cos[0], &sin[0], n)
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
	scaleAddAVX2(&x[0], stride, &sum[0], &w[0], n, d)
}

func axpy2Fast(dst, sum, src []float32, w, v float32) {
	n := len(src) &^ 7
	if n > 0 {
		need(dst, len(src))
		need(sum, len(src))
		axpy2AVX2(&dst[0], &sum[0], &src[0], w, v, n)
	}
	axpy2(dst[n:], sum[n:], src[n:], w, v)
}

func rotateByFast(lo, hi, cos, sin, freq []float32, delta, scale float32) {
	n := len(lo) &^ 7
	if n > 0 {
		need(hi, len(lo))
		need(cos, len(lo))
		need(sin, len(lo))
		need(freq, len(lo))
		rotateByAVX2(&lo[0], &hi[0], &cos[0], &sin[0], &freq[0], delta, scale, n)
	}
	rotateBy(lo[n:], hi[n:], cos[n:], sin[n:], freq[n:], delta, scale)
}

func maxAbsFast(x []float32) float32 {
	n := len(x) &^ 7
	if n == 0 {
		return maxAbs(x)
	}
	return max(maxAbsAVX2(&x[0], n), maxAbs(x[n:]))
}

func narrowE4M3Fast(dst []byte, src []float32, w float32) {
	n := len(src) &^ 7
	if n > 0 {
		_ = dst[len(src)-1]
		narrowE4M3AVX2(&dst[0], &src[0], w, n)
	}
	narrowE4M3(dst[n:], src[n:], w)
}

func mirrorFast(s []float32, ld, n int) {
	if n > 4 {
		need(s, (n-1)*ld+n)
		mirrorAVX2(&s[0], ld, n)
	}
}

func quantizeFast(dst []int16, src []float32, scale float32, n, ld int) float64 {
	if n == 0 || ld%16 != 0 {
		return quantize(dst, src, scale, n, ld)
	}
	need(src, n)
	_ = dst[ld-1]
	return quantizeRowAVX512(&dst[0], &src[0], scale, n, ld)
}

func weighFast(row []int16, weight []uint16) {
	n := len(row) &^ 15
	if n > 0 {
		_ = weight[len(row)-1]
		weighRowAVX2(&row[0], &weight[0], n)
	}
	weigh(row[n:], weight[n:])
}

func rankFast(order []uint16, keys []uint64) {
	n := len(keys)
	if n == 0 || n > 128 {
		rank(order, keys)
		return
	}
	_ = order[n-1]
	var filled [128]uint64
	for i := copy(filled[:], keys); i < len(filled); i++ {
		filled[i] = math.MaxUint64
	}
	if n <= 64 {
		rank64AVX512(&order[0], &filled[0], n)
	} else {
		rank128AVX512(&order[0], &filled[0], n)
	}
}

// reorderFast trusts that the indices are rows.
func reorderFast(dst, src []int16, ld int, order []uint16) {
	n := len(order)
	if n == 0 || (ld != 64 && ld != 128) {
		reorder(dst, src, ld, order)
		return
	}
	_, _ = dst[n*ld-1], src[n*ld-1]
	var columns [128]uint16
	copy(columns[:ld], order)
	if ld == 64 {
		reorder64AVX512(&dst[0], &src[0], &columns[0], n)
	} else {
		reorder128AVX512(&dst[0], &src[0], &columns[0], n)
	}
}

// How many chunks the assembly takes side by side.
const (
	count64Chunks  = 4
	count128Chunks = 3
)

// countFast trusts that the candidates are rows of sim.
func countFast(sim []int16, ld int, starts []int, live []uint64, t int) (clusters int) {
	switch n := len(starts); ld {
	case 64:
		full := n - n%count64Chunks
		if full > 0 {
			_ = live[n-1]
			clusters = count64AVX512(&sim[0], &starts[0], &live[0], full/count64Chunks, t)
		}
		if full < n {
			last, free := filledUp(starts[full:], live[full:n])
			clusters += count64AVX512(&sim[0], &last[0], &free[0], 1, t)
		}
	case 128:
		full := n - n%count128Chunks
		if full > 0 {
			_ = live[2*n-1]
			clusters = count128AVX512(&sim[0], &starts[0], &live[0], full/count128Chunks, t)
		}
		if full < n {
			last, free := filledUp(starts[full:], live[2*full:2*n])
			clusters += count128AVX512(&sim[0], &last[0], &free[0], 1, t)
		}
	default:
		clusters = count(sim, ld, starts, live, t)
	}
	return clusters
}

// filledUp adds empty chunks to the last ones.
func filledUp(starts []int, live []uint64) (last [count64Chunks]int, free [2 * count128Chunks]uint64) {
	copy(last[:], starts)
	copy(free[:], live)
	return last, free
}

var (
	fastBF16 = fastHalf(genericBF16, halfAssembly{widen: widenBF16AVX2, narrow: narrowBF16AVX2, unrotate: unrotateBF16AVX2,
		unrotateAdd: unrotateAddBF16AVX2, unrotateDot: unrotateDotBF16AVX2, axpy: axpyBF16AVX2})
	fastF16 = fastHalf(genericF16, halfAssembly{widen: widenF16AVX2, narrow: narrowF16AVX2, unrotate: unrotateF16AVX2,
		unrotateAdd: unrotateAddF16AVX2, unrotateDot: unrotateDotF16AVX2, axpy: axpyF16AVX2})
)

func hadamardFast(x []float32, size int) {
	if size < 8 || len(x) == 0 {
		hadamard(x, size)
		return
	}
	hadamardAVX2(&x[0], len(x), size)
}

func roundLossFast(x []float32, inv, top float32) float32 {
	if len(x) == 0 || len(x)%CodeLanes != 0 {
		return roundLoss(x, inv, top)
	}
	return roundLossAVX2(&x[0], len(x), inv, top)
}

func roundCodesFast(codes []byte, x []float32, step, top float32) {
	n := len(x) &^ 7
	at := n
	if top == 15 {
		at /= 2
	}
	if n > 0 {
		_ = codes[at-1]
		if top == 15 {
			roundCodes4AVX2(&codes[0], &x[0], n, step)
		} else {
			roundCodes8AVX2(&codes[0], &x[0], n, step)
		}
	}
	roundCodes(codes[at:], x[n:], step, top)
}

func levelsFast(dst []float32, codes []byte, top float32) {
	n := len(dst) &^ 7
	at := n
	if top == 15 {
		at /= 2
	}
	if n > 0 {
		_ = codes[at-1]
		if top == 15 {
			levels4AVX2(&dst[0], &codes[0], n)
		} else {
			levels8AVX2(&dst[0], &codes[0], n)
		}
	}
	levels(dst[n:], codes[at:], top)
}
