package compress

import (
	"math"

	"github.com/semproxy/semproxy/compress/internal/simd"
)

// runPrepare un-rotates and normalises every key between the sinks and the recent window.
func (w *work) runPrepare(p *pool) {
	if h := len(w.freq); h > 0 {
		w.cos, w.sin = grow(w.cos, w.n*h), grow(w.sin, w.n*h)
		w.angles = grow(w.angles, 2*h)
		ropeTable(w.cos, w.sin, w.in.Positions[w.sinks:w.sinks+w.n], w.freq, w.angles)
	}
	p.run(&w.phase, w.in.planes(), w.prepareTask)
}

// meanBlock is how many unit keys are added up in float32 before the sum goes to float64.
const meanBlock = 64

// prepare does one plane.
func (w *work) prepare(worker, plane int) {
	d, h := w.in.Dim, len(w.freq)
	units, norms := w.units(plane), group(w.norm, plane, w.n)
	mean := group(w.mean, plane, d)
	clear(mean)
	a := &w.arena[worker]
	a.acc = grow(a.acc, d)
	sum := a.acc
	clear(sum)
	scale := scaleOf(w.in.KScale, plane)
	for i := range norms {
		padded := units[i*w.stride : (i+1)*w.stride]
		u := padded[:d]
		clear(padded[d:])
		key := w.in.row(w.in.K, plane, w.sinks+i)
		cos, sin := w.cos[i*h:i*h+h], w.sin[i*h:i*h+h]
		var squares float32
		if w.half != nil && 2*h == d && !w.rope.Interleaved {
			squares = w.half.Unrotate(u, key, cos, sin)
		} else {
			widen(w.kernel, u, key, w.in.DType, scale)
			unrotateRow(w.kernel, u, cos, sin, w.rope.Interleaved)
			squares = w.kernel.Dot(u, u)
		}
		length, inv := lengthOf(u, squares)
		norms[i] = length
		if inv == 0 {
			normalize(w.kernel, u) // out of float32's range
			w.kernel.Axpy(sum, u, 1)
		} else {
			w.kernel.ScaleAdd(u, sum, inv)
		}
		if i%meanBlock == meanBlock-1 || i == len(norms)-1 {
			for k, x := range sum {
				mean[k] += float64(x)
			}
			clear(sum)
		}
	}
	direction(mean)
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

func direction(mean []float64) {
	ss := 0.0
	for _, x := range mean {
		ss += x * x
	}
	inv := 1 / (math.Sqrt(ss) + 1e-9)
	for k := range mean {
		mean[k] *= inv
	}
}

// runSingles chooses the tokens that are never merged: the protected ones and the outliers.
func (w *work) runSingles(p *pool) {
	if !w.whole {
		p.run(&w.phase, w.groups, w.singlesTask)
	}
}

// chooseSingles does one group. A token's score is the sum over the heads of 1 - u . mean direction (KeyDiff's criterion,
// on un-rotated keys).
func (w *work) chooseSingles(worker, g int) {
	single := group(w.single, g, w.n)
	copy(single, w.keep)
	_, exact := w.budget()
	if exact == 0 {
		return
	}
	d := w.in.Dim
	a := &w.arena[worker]
	a.acc = grow(a.acc, d)
	score := group(w.score, g, w.n)
	clear(score)
	for plane := g * w.heads; plane < (g+1)*w.heads; plane++ {
		for k, x := range group(w.mean, plane, d) {
			a.acc[k] = float32(x)
		}
		units := w.units(plane)
		for i := range score {
			score[i] += 1 - w.kernel.Dot(units[i*w.stride:i*w.stride+d], a.acc)
		}
	}
	idx := group(w.index, g, w.n)[:0]
	for i, k := range w.keep {
		if !k {
			idx = append(idx, int32(i))
		}
	}
	exact = min(exact, len(idx))
	selectTop(idx, score, exact)
	for _, i := range idx[:exact] {
		single[i] = true
	}
}
