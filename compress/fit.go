package compress

import (
	"github.com/semproxy/semproxy/internal/simd"
)

// ridge is the weight of staying near the mean of the members' values, in units of the mean square of a query's attention to a core: it
// stays the same however many queries teach.
const ridge = 6.4

// foldRidge keeps the direction of a fold near the mean query's, in units of the queries' mean square.
const foldRidge = 1.0

// foldLimit is the largest variance of a folded bias over the queries, relative to the bias: where a head's queries differ
// more, less of the bias is folded.
const foldLimit = 1.0

// maxFit bounds the attention weights of one head's fit: 64 queries over a quarter of a million cores.
const maxFit = 16 << 20

// fitting is the phase that moves cores, so that the queries that come get from the cores what they got from the originals: biases of
// merged cores into their keys, and the values of all cores but those of sinks, recent and protected tokens, which stay bit for bit.
type fitting struct {
	pg      *page
	taught  *lessons
	out     *Result
	scratch []fitScratch // [workers]
	task    func(worker, plane int)
}

// fitScratch is one worker's.
type fitScratch struct {
	system           // of the fit's equations
	rest   []float32 // [unknowns, wide], what the cores lack, and the solution
	moved  []float32 // [cores that move, lanes], attention to them
	moves  []int32   // those cores
	still  []bool    // [cores], those that do not
	rows   []float32 // [askBlock, wide], by how much
	row    []float32 // [dim], one key or value
	fold   []float32 // [dim], the direction along which a bias goes into a key
}

func newFitting(workers int) *fitting {
	f := &fitting{scratch: make([]fitScratch, workers)}
	f.task = f.plane
	return f
}

// run changes the cores of out. taught is nil when the page teaches nothing.
func (f *fitting) run(pg *page, taught *lessons, out *Result) {
	if taught == nil || !pg.opt.Fit && !pg.opt.Fold {
		return
	}
	f.pg, f.taught, f.out = pg, taught, out
	pg.each(pg.in.planes(), f.task)
	f.out = nil
}

// plane does one plane.
func (f *fitting) plane(worker, plane int) {
	if f.pg.opt.Fold {
		f.foldBias(worker, plane)
	}
	if f.pg.opt.Fit {
		f.fitValues(worker, plane)
	}
}

// foldBias moves a merged core's bias into its key, so that no kernel needs to know of it: k + bias f, with f such that q.f is
// one on average over the turned queries q and near one for each: ridge regression of one on q, f = Q^T (Q Q^T + l I)^-1 1,
// divided by its mean product.
func (f *fitting) foldBias(worker, plane int) {
	a, out, in, kn := &f.scratch[worker], planeOf(f.pg, f.out, plane), f.pg.in, f.pg.kernel
	d, n, stride := in.Dim, len(f.taught.set.asks), simd.Stride(in.Dim)
	queries := f.pg.askers[worker].turned(&f.taught.set, in, plane, 0, n)
	n4 := (n + 3) &^ 3
	a.matrix = grow(a.matrix, n4*n4)
	clear(a.matrix)
	kn.Gram(a.matrix, n4, queries, n, stride)
	a.rest = grow(a.rest, (n+7)&^7*simd.Lanes)
	clear(a.rest)
	trace := 0.0
	for i := range n {
		trace += float64(a.matrix[i*n4+i])
		a.rest[i*simd.Lanes] = 1
	}
	a.fold = grow(a.fold, d)
	clear(a.fold)
	along, scale := a.fold, 0.0
	if a.solve(kn, a.rest, n, n4, simd.Lanes, foldRidge*trace/float64(d)+1e-12) {
		for r := range n {
			kn.Axpy(along, queries[r*stride:r*stride+d], a.rest[r*simd.Lanes])
		}
		scale = foldScale(kn, queries, along, n, stride)
	}
	a.row = grow(a.row, d)
	for c := range int(f.out.Slots[plane]) {
		if out.counts[c] > 1 {
			row := out.k[c*out.rb : (c+1)*out.rb]
			widen(kn, a.row, row, in.DType, scaleOf(in.KScale, plane))
			kn.Axpy(a.row, along, float32(float64(out.bias[c])*scale))
			narrow(kn, row, a.row, in.DType, scaleOf(in.KScale, plane))
		}
		out.bias[c] = 0
	}
}

// foldScale is what makes the mean of q.f over the n queries one, or less where they vary much.
func foldScale(kn *simd.Kernels, queries, f []float32, n, stride int) float64 {
	sum, squares := 0.0, 0.0
	for r := range n {
		x := float64(kn.Dot(queries[r*stride:r*stride+len(f)], f))
		sum += x
		squares += x * x
	}
	mean := sum / float64(n)
	if !(mean > 1e-12) {
		return 0
	}
	scale := 1 / mean
	if variance := squares/float64(n)*scale*scale - 1; variance > foldLimit {
		scale *= foldLimit / variance
	}
	return scale
}

// moving lists the cores whose values may move: all but those of tokens at the edges of the page and of protected ones.
func (f *fitting) moving(a *fitScratch, plane, cores int) {
	pg := f.pg
	a.still = grow(a.still, cores)
	clear(a.still)
	assign := group(f.out.Assign, plane, pg.in.Tokens)[pg.sinks:]
	for i, keep := range pg.keep {
		if keep {
			a.still[assign[i]] = true
		}
	}
	a.moves = a.moves[:0]
	for c := pg.sinks; c < cores-pg.recent; c++ {
		if !a.still[c] {
			a.moves = append(a.moves, int32(c))
		}
	}
}

// fitValues moves values so that attention over the cores gives the turned queries what attention over the originals gave them: ridge
// regression, V + X'^T (X' X'^T + l I)^-1 (Y - X V), with X, [queries, cores], the attention to the cores, X' its columns of those that
// move and Y the outputs over the originals. In this form the system is no larger than the queries.
func (f *fitting) fitValues(worker, plane int) {
	a, out, in, kn := &f.scratch[worker], planeOf(f.pg, f.out, plane), f.pg.in, f.pg.kernel
	d, n, kv := in.Dim, len(f.taught.set.asks), entriesOf(in, f.out, plane)
	if simd.Wide(n)*kv.n > maxFit {
		return // the means stay
	}
	asker, wide := &f.pg.askers[worker], simd.Wide(d)
	x := asker.ask(asker.turned(&f.taught.set, in, plane, 0, n), n, kv, d, allWeights)
	a.rest = grow(a.rest, x.lanes*wide)
	clear(a.rest)
	all := 0.0
	for q := range n {
		by := 1 / x.sum[q]
		all += float64(x.squares[q]) * float64(by) * float64(by)
		rest, out := a.rest[q*wide:q*wide+d], x.out[q*wide:]
		for i, y := range group(f.taught.want, plane, n*d)[q*d : q*d+d] {
			rest[i] = y - out[i]*by
		}
	}
	// The shares of cores that move, side by side.
	f.moving(a, plane, kv.n)
	if len(a.moves) == 0 {
		return
	}
	m := (len(a.moves) + simd.MulRows - 1) &^ (simd.MulRows - 1)
	a.moved, a.matrix = grow(a.moved, m*x.lanes), grow(a.matrix, x.lanes*x.lanes)
	clear(a.moved[len(a.moves)*x.lanes:])
	by, of := []float32(nil), -1
	for i, c := range a.moves {
		if b := int(c) / askBlock; b != of {
			by, of = x.share(b), b
		}
		row := group(a.moved, i, x.lanes)
		for q, e := range group(x.weights, int(c), x.lanes) {
			row[q] = e * by[q]
		}
	}
	kn.Mul(a.matrix, x.lanes, a.moved, 1, x.lanes, a.moved, x.lanes, x.lanes, len(a.moves), x.lanes)
	if !a.solve(kn, a.rest, n, x.lanes, wide, ridge*all/float64(n*kv.n)+1e-12) {
		return
	}
	a.row = grow(a.row, d)
	a.rows = grow(a.rows, askBlock*wide)
	for from := 0; from < len(a.moves); from += askBlock {
		some := a.moves[from:min(from+askBlock, len(a.moves))]
		kn.Mul(a.rows, wide, a.moved[from*x.lanes:], x.lanes, 1, a.rest, wide, (len(some)+simd.MulRows-1)&^(simd.MulRows-1), x.lanes, wide)
		for i, c := range some {
			row := out.v[int(c)*out.rb : int(c+1)*out.rb]
			widen(kn, a.row, row, in.DType, scaleOf(in.VScale, plane))
			kn.Axpy(a.row, a.rows[i*wide:i*wide+d], 1)
			narrow(kn, row, a.row, in.DType, scaleOf(in.VScale, plane))
		}
	}
}
