package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// unitKeys makes the keys of chunks unit keys, turned back to the chunk's first position.
type unitKeys struct {
	pg      *page
	lay     *layout
	norm    []float32    // [planes, n], length of each key: whoever begins owns it
	sums    []float32    // [planes, chunks, dim], sum of the chunk's unit keys
	scratch []keyScratch // [workers]
}

// keyScratch is one worker's.
type keyScratch struct {
	units []float32 // [chunk, stride], unit keys of one chunk of one plane
	inv   []float32 // [chunk], one over their lengths before
	turning
}

// begin gets ready for chunks, the lengths of whose keys go to norm.
func (u *unitKeys) begin(pg *page, lay *layout, norm []float32) {
	u.pg, u.lay, u.norm = pg, lay, norm
	u.sums = grow(u.sums, pg.in.planes()*len(lay.chunks)*pg.in.Dim)
}

// of returns the unit keys of chunk k of a plane, [chunk, stride], in the worker's memory, notes their lengths and sums them up.
func (u *unitKeys) of(worker, plane, k int) []float32 {
	a, pg, c := &u.scratch[worker], u.pg, &u.lay.chunks[k]
	d, n, n4 := pg.in.Dim, c.len(), (c.len()+3)&^3 // kernels take rows by four
	a.units, a.inv = grow(a.units, n4*pg.stride), grow(a.inv, n)
	for i := d; i < pg.stride*n && pg.stride > d; i += pg.stride {
		clear(a.units[i : i+pg.stride-d])
	}
	pg.unrotateChunk(&a.turning, a.units, a.inv, plane, c)
	norms := group(u.norm, plane, pg.n)[c.lo:c.hi]
	for i, squares := range a.inv {
		norms[i], a.inv[i] = lengthOf(a.units[i*pg.stride:][:d], squares)
		if a.inv[i] == 0 {
			normalize(pg.kernel, a.units[i*pg.stride:][:d]) // out of float32's range
			a.inv[i] = 1
		}
	}
	sum := u.sum(plane, k)
	clear(sum)
	pg.kernel.ScaleAdd(a.units, pg.stride, sum, a.inv)
	return a.units
}

// sum is that of the unit keys of chunk k of a plane.
func (u *unitKeys) sum(plane, k int) []float32 {
	return group(u.sums, plane*len(u.lay.chunks)+k, u.pg.in.Dim)
}

// fused reports whether keys are turned straight from their 16 bits by rows of the table: half rotation over the whole key,
// as far as the table goes.
func (pg *page) fused(distance int) bool {
	return pg.half != nil && 2*len(pg.freq) == pg.in.Dim && !pg.rope.Interleaved && distance < pg.rowCount
}

// measure notes the distances of chunk c's tokens from its first and returns the last.
func (a *turning) measure(pg *page, c *chunk) int {
	a.distances = grow(a.distances, c.len())
	positions := pg.in.Positions[pg.sinks+c.lo : pg.sinks+c.hi]
	for i, p := range positions {
		a.distances[i] = p - positions[0]
	}
	return int(a.distances[len(a.distances)-1])
}

// unrotateChunk writes the keys of a chunk, turned back to its first position, to dst, rows of stride, and the sums of
// their squares to squares.
func (pg *page) unrotateChunk(a *turning, dst, squares []float32, plane int, c *chunk) {
	if pg.fused(a.measure(pg, c)) {
		pg.half.Unrotate(dst, pg.stride, squares, pg.in.rows(pg.in.K, plane, pg.sinks+c.lo, c.len()), pg.angles(), a.distances)
		return
	}
	for i := c.lo; i < c.hi; i++ {
		row := dst[(i-c.lo)*pg.stride:][:pg.in.Dim]
		pg.unrotate(a, row, plane, i, int(a.distances[i-c.lo]))
		squares[i-c.lo] = pg.kernel.Dot(row, row)
	}
}

// unrotate writes the key of token i, turned back by a distance, to dst, [dim].
func (pg *page) unrotate(a *turning, dst []float32, plane, i, distance int) {
	widen(pg.kernel, dst, pg.in.row(pg.in.K, plane, pg.sinks+i), pg.in.DType, scaleOf(pg.in.KScale, plane))
	cos, sin := pg.at(a, distance)
	unrotateRow(pg.kernel, dst, cos, sin, pg.rope.Interleaved)
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
