package compress

import (
	"math"

	"github.com/semproxy/semproxy/compress/internal/simd"
)

// fused reports whether keys are turned by cos and the like straight from their 16 bits: half rotation over the whole key.
func (w *work) fused(cos []float32) bool {
	return w.half != nil && 2*len(cos) == w.in.Dim && !w.rope.Interleaved
}

// angleIn is the angle of token i's position from the first of its chunk.
func (w *work) angleIn(a *arena, c *chunk, i int) (cos, sin []float32) {
	return w.at(a, int(positionOf(w, i)-positionOf(w, c.lo)))
}

// unrotate writes the key of token i, turned back, to dst, [dim], and returns the sum of its squares.
func (w *work) unrotate(dst, cos, sin []float32, plane, i int) float32 {
	key := w.in.row(w.in.K, plane, w.sinks+i)
	if w.fused(cos) {
		return w.half.Unrotate(dst, key, cos, sin)
	}
	widen(w.kernel, dst, key, w.in.DType, scaleOf(w.in.KScale, plane))
	unrotateRow(w.kernel, dst, cos, sin, w.rope.Interleaved)
	return w.kernel.Dot(dst, dst)
}

// unitKeys fills a.units with the unit keys of chunk c of a plane, notes their lengths and sums them up.
func (w *work) unitKeys(a *arena, plane, k int) {
	c, d := &w.chunks[k], w.in.Dim
	n4 := (c.len() + 3) &^ 3 // kernels take rows by four
	a.units = grow(a.units, n4*w.stride)
	norms := group(w.norm, plane, w.n)
	sum := w.sums[(plane*len(w.chunks)+k)*d:][:d]
	clear(sum)
	for i := c.lo; i < c.hi; i++ {
		row := a.units[(i-c.lo)*w.stride:][:w.stride]
		u := row[:d]
		clear(row[d:])
		cos, sin := w.angleIn(a, c, i)
		length, inv := lengthOf(u, w.unrotate(u, cos, sin, plane, i))
		norms[i] = length
		if inv == 0 {
			normalize(w.kernel, u) // out of float32's range
			w.kernel.Axpy(sum, u, 1)
		} else {
			w.kernel.ScaleAdd(u, sum, inv)
		}
	}
}

// lengthOf is the length of u, whose squares sum to ss, and what to multiply u by to make it a unit vector: 1/(length+1e-9),
// or 0 when float32 cannot hold it.
func lengthOf(u []float32, ss float32) (length, inv float32) {
	if ss > 1e-30 && ss < 1e37 {
		l := math.Sqrt(float64(ss))
		return float32(l), float32(1 / (l + 1e-9))
	}
	sum := 0.0
	for _, x := range u {
		sum += float64(x) * float64(x)
	}
	return float32(min(math.Sqrt(sum), math.MaxFloat32)), 0
}

// normalize divides u by its length plus 1e-9 and returns the length.
func normalize(kn *simd.Kernels, u []float32) float32 {
	length, inv := lengthOf(u, kn.Dot(u, u))
	if inv != 0 {
		kn.Scale(u, inv)
		return length
	}
	sum := 0.0
	for _, x := range u {
		sum += float64(x) * float64(x)
	}
	wide := 1 / (math.Sqrt(sum) + 1e-9)
	for k, x := range u {
		u[k] = float32(float64(x) * wide)
	}
	return length
}
