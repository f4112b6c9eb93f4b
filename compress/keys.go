package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// unitKeys fills a.units with the unit keys of chunk k of a plane, notes their lengths and sums them up.
func (w *work) unitKeys(a *arena, plane, k int) {
	c, d := &w.chunks[k], w.in.Dim
	n, n4 := c.len(), (c.len()+3)&^3 // kernels take rows by four
	a.units, a.inv = grow(a.units, n4*w.stride), grow(a.inv, n)
	for i := d; i < w.stride*n && w.stride > d; i += w.stride {
		clear(a.units[i : i+w.stride-d])
	}
	w.unrotateChunk(a, a.units, a.inv, plane, c)
	norms := group(w.norm, plane, w.n)[c.lo:c.hi]
	for i, squares := range a.inv {
		norms[i], a.inv[i] = lengthOf(a.units[i*w.stride:][:d], squares)
		if a.inv[i] == 0 {
			normalize(w.kernel, a.units[i*w.stride:][:d]) // out of float32's range
			a.inv[i] = 1
		}
	}
	sum := w.sums[(plane*len(w.chunks)+k)*d:][:d]
	clear(sum)
	w.kernel.ScaleAdd(a.units, w.stride, sum, a.inv)
}

// fused reports whether keys are turned straight from their 16 bits by rows of the table: half rotation over the whole key,
// as far as the table goes.
func (w *work) fused(distance int) bool {
	return w.half != nil && 2*len(w.freq) == w.in.Dim && !w.rope.Interleaved && distance < w.rowCount
}

// distances fills a.at with the distances of chunk c's tokens from its first and returns the last.
func (w *work) distances(a *arena, c *chunk) int {
	a.at = grow(a.at, c.len())
	positions := w.in.Positions[w.sinks+c.lo : w.sinks+c.hi]
	for i, p := range positions {
		a.at[i] = p - positions[0]
	}
	return int(a.at[len(a.at)-1])
}

// unrotateChunk writes the keys of a chunk, turned back to its first position, to dst, rows of w.stride, and the sums of
// their squares to squares.
func (w *work) unrotateChunk(a *arena, dst, squares []float32, plane int, c *chunk) {
	if w.fused(w.distances(a, c)) {
		w.half.Unrotate(dst, w.stride, squares, w.in.rows(w.in.K, plane, w.sinks+c.lo, c.len()), w.angles(), a.at)
		return
	}
	for i := c.lo; i < c.hi; i++ {
		row := dst[(i-c.lo)*w.stride:][:w.in.Dim]
		w.unrotate(a, row, plane, i, int(a.at[i-c.lo]))
		squares[i-c.lo] = w.kernel.Dot(row, row)
	}
}

// unrotate writes the key of token i, turned back by a distance, to dst, [dim].
func (w *work) unrotate(a *arena, dst []float32, plane, i, distance int) {
	widen(w.kernel, dst, w.in.row(w.in.K, plane, w.sinks+i), w.in.DType, scaleOf(w.in.KScale, plane))
	cos, sin := w.at(a, distance)
	unrotateRow(w.kernel, dst, cos, sin, w.rope.Interleaved)
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
