package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// rotation undoes and redoes RoPE inside chunks.
//
// Similarities inside a chunk do not change when all of its keys are turned by the same angle. So a key is turned back
// only to the position of its chunk's first token: a short table of angles, by distance, serves every chunk of every
// plane of every page of a model, and stays in the cache. Where keys of different chunks meet, in the mean direction, a
// chunk is turned by the angle of its first position once.
type rotation struct {
	rope     Rope
	all      []float64 // frequencies of rope
	freq     []float64 // those that are undone: none when the options keep keys rotated
	freq32   []float32
	cos      []float32 // [rows, len(all)], by distance from the chunk's first position
	sin      []float32
	rowCount int // of the table
	scratch  []complex128
	integer  []int32
}

// turning is one worker's memory for the angles of a chunk.
type turning struct {
	distances []int32   // [chunk], of the tokens from the chunk's first
	cos, sin  []float32 // of an angle that no table holds
}

// maxTable bounds the table; what lies further apart is computed.
const maxTable = 4096

// use prepares for pages of a model. Pages of one model follow each other, so that the table is seldom made.
func (r *rotation) use(rope Rope, keep bool) error {
	if r.all == nil || r.rope != rope {
		freq, err := rope.Frequencies()
		if err != nil {
			return err
		}
		r.rope, r.all, r.rowCount = rope, freq, 0
		r.freq32 = grow(r.freq32, len(freq))
		for i, f := range freq {
			r.freq32[i] = float32(f)
		}
	}
	r.freq = r.all
	if keep {
		r.freq = nil
	}
	return nil
}

// cover makes the table reach distances below rows.
func (r *rotation) cover(rows int) {
	rows = min(rows, maxTable)
	if h := len(r.all); h > 0 && rows > r.rowCount {
		r.cos, r.sin, r.scratch, r.integer = grow(r.cos, rows*h), grow(r.sin, rows*h), grow(r.scratch, 2*h), grow(r.integer, rows)
		for i := range r.integer {
			r.integer[i] = int32(i)
		}
		ropeTable(r.cos, r.sin, r.integer, r.all, r.scratch)
		r.rowCount = rows
	}
}

// at is the angle of a whole distance: a row of the table, else computed into a.
func (r *rotation) at(a *turning, distance int) (cos, sin []float32) {
	h := len(r.freq)
	if distance < r.rowCount {
		return r.cos[distance*h : distance*h+h], r.sin[distance*h : distance*h+h]
	}
	return r.exact(a, float64(distance))
}

// angles is the table.
func (r *rotation) angles() simd.Angles {
	return simd.Angles{Cos: r.cos, Sin: r.sin, Half: len(r.freq)}
}

// exact computes the angle of any distance.
func (r *rotation) exact(a *turning, distance float64) (cos, sin []float32) {
	h := len(r.freq)
	a.cos, a.sin = grow(a.cos, h), grow(a.sin, h)
	for i, f := range r.freq {
		s, c := math.Sincos(distance * f)
		a.cos[i], a.sin[i] = float32(c), float32(s)
	}
	return a.cos, a.sin
}

// turn rotates a merged key by a fractional distance and multiplies it by scale.
func (r *rotation) turn(kn *simd.Kernels, a *turning, x []float32, distance float64, scale float32) {
	h := len(r.freq)
	near := int(distance + 0.5)
	if h == 0 || r.rope.Interleaved || near >= r.rowCount {
		cos, sin := r.exact(a, distance)
		rotateRow(x, cos, sin, r.rope.Interleaved)
		kn.Scale(x, scale)
		return
	}
	// No frequency exceeds one, so the rest of the angle is at most a half.
	cos, sin := r.cos[near*h:near*h+h], r.sin[near*h:near*h+h]
	kn.RotateBy(x[:h], x[h:2*h], cos, sin, r.freq32, float32(distance-float64(near)), scale)
	kn.Scale(x[2*h:], scale)
}

// bases are the angles of the chunks' first positions.
type bases struct {
	pairs    int
	cos, sin []float32 // [chunks, pairs]
}

// set computes them. positions are those of the tokens between the edges.
func (b *bases) set(freq []float64, positions []int32, chunks []chunk) {
	h := len(freq)
	b.pairs, b.cos, b.sin = h, grow(b.cos, len(chunks)*h), grow(b.sin, len(chunks)*h)
	for k, c := range chunks {
		for i, f := range freq {
			s, co := math.Sincos(float64(positions[c.lo]) * f)
			b.cos[k*h+i], b.sin[k*h+i] = float32(co), float32(s)
		}
	}
}

// of is the angle of chunk k's first position.
func (b *bases) of(k int) (cos, sin []float32) {
	return group(b.cos, k, b.pairs), group(b.sin, k, b.pairs)
}
