package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// ridge is the weight of staying near the mean of the members' values, in units of the mean square of a query's attention to a core: it
// stays the same however many queries teach.
const ridge = 6.4

// keyRidge is the weight of staying near the mean key, in units of the queries' mean square. It also keeps the direction of a fold near the
// mean query's.
const keyRidge = 0.3

// keyLimit bounds what is added to a logit.
const keyLimit = 2

// foldLimit is the largest variance of a folded bias over the queries, relative to the bias: where a head's queries differ
// more, less of the bias is folded.
const foldLimit = 1.0

// maxFit bounds the attention weights of one head's fit: 64 queries over a quarter of a million cores.
const maxFit = 16 << 20

// fitting is the phase that moves cores, so that the queries that come get from the cores what they got from the originals: biases of
// merged cores into their keys, those keys, and the values of all cores but those of sinks, recent and protected tokens, which stay bit
// for bit.
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
	aims   []float32 // [turned queries, wide], what added to a key adds one to the query's logit
	rest   []float32 // [unknowns, wide], what the cores lack, and the solution
	moved  []float32 // [cores that move, lanes], attention to them
	moves  []int32   // those cores
	place  []int32   // [cores], those cores' places in moves
	sums   []float32 // [cores that move, lanes], of the exponentials of their members' logits
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
	aimed := f.aim(worker, plane)
	if f.pg.opt.Fold {
		f.foldBias(worker, plane, aimed)
	}
	if f.pg.opt.Fit {
		if aimed {
			f.fitKeys(worker, plane)
		}
		f.fitValues(worker, plane)
	}
}

// aim finds for each turned query a key, row r of Z = (Q Q^T + l I)^-1 Q, that adds one to this query's logit and little to those of the
// others: what is to be added to all logits, R, takes the key R Z (ridge regression of R on Q). It reports false where there is none.
func (f *fitting) aim(worker, plane int) bool {
	a, in, kn := &f.scratch[worker], f.pg.in, f.pg.kernel
	d, n, stride := in.Dim, len(f.taught.set.asks), simd.Stride(in.Dim)
	queries, wide := f.pg.askers[worker].turned(&f.taught.set, in, plane, 0, n), simd.Wide(in.Dim)
	n4 := (n + 3) &^ 3
	a.matrix = grow(a.matrix, n4*n4)
	clear(a.matrix)
	kn.Gram(a.matrix, n4, queries, n, stride)
	a.aims = grow(a.aims, max((n+simd.MulRows-1)&^(simd.MulRows-1), simd.Wide(n))*wide)
	clear(a.aims)
	trace := 0.0
	for r := range n {
		trace += float64(a.matrix[r*n4+r])
		copy(a.aims[r*wide:], queries[r*stride:r*stride+d])
	}
	return a.solve(kn, a.aims, n, n4, wide, keyRidge*trace/float64(d)+1e-12)
}

// fitKeys moves the keys of merged cores, so that a turned query gives a core the attention that it gave the core's members: its logit
// is to be the logarithm of the sum of their exponentials, which the logit of a mean key and the bias fall short of.
func (f *fitting) fitKeys(worker, plane int) {
	a, out, in := &f.scratch[worker], planeOf(f.pg, f.out, plane), f.pg.in
	n, kv := len(f.taught.set.asks), entriesOf(in, f.out, plane)
	if simd.Wide(n)*in.Tokens > maxFit {
		return // the means stay
	}
	a.merged(out.counts[:kv.n])
	if len(a.moves) == 0 {
		return
	}
	asker := &f.pg.askers[worker]
	lanes := f.masses(asker, a, plane)
	x := asker.ask(asker.turned(&f.taught.set, in, plane, 0, n), n, kv, in.Dim, logitsOnly)
	for i, c := range a.moves {
		lack := group(a.moved, i, lanes)
		for q, logit := range group(x.weights, int(c), lanes) {
			lack[q] = min(max(lack[q]-logit, -keyLimit), keyLimit)
		}
	}
	f.nudge(a, out.k, a.aims, lanes, scaleOf(in.KScale, plane))
}

// nudge adds to the rows of x, keys or values of one plane, that moves names, what moved says of z, [lanes, wide].
func (f *fitting) nudge(a *fitScratch, x []byte, z []float32, lanes int, scale float32) {
	in, kn, d, wide := f.pg.in, f.pg.kernel, f.pg.in.Dim, simd.Wide(f.pg.in.Dim)
	a.row, a.rows = grow(a.row, d), grow(a.rows, askBlock*wide)
	for from := 0; from < len(a.moves); from += askBlock {
		some := a.moves[from:min(from+askBlock, len(a.moves))]
		kn.Mul(a.rows, wide, a.moved[from*lanes:], lanes, 1, z, wide, (len(some)+simd.MulRows-1)&^(simd.MulRows-1), lanes, wide)
		for i, c := range some {
			row := x[int(c)*in.rowBytes():][:in.rowBytes()]
			widen(kn, a.row, row, in.DType, scale)
			kn.Axpy(a.row, a.rows[i*wide:i*wide+d], 1)
			narrow(kn, row, a.row, in.DType, scale)
		}
	}
}

// merged lists the cores of more than one token.
func (a *fitScratch) merged(counts []int32) {
	a.moves, a.place = a.moves[:0], grow(a.place, len(counts))
	for c, n := range counts {
		a.place[c] = int32(len(a.moves))
		if n > 1 {
			a.moves = append(a.moves, int32(c))
		}
	}
}

// masses writes to a.moved, [cores that moves names, lanes], the logarithm of the attention that the members of each get, before it is
// divided by the sum over all.
func (f *fitting) masses(asker *asker, a *fitScratch, plane int) (lanes int) {
	in, kn := f.pg.in, f.pg.kernel
	n := len(f.taught.set.asks)
	x := asker.ask(asker.turned(&f.taught.set, in, plane, 0, n), n, entriesOf(in, nil, plane), in.Dim, logitsOnly)
	lanes = x.lanes
	rows := (len(a.moves) + simd.MulRows - 1) &^ (simd.MulRows - 1)
	a.moved, a.sums = grow(a.moved, rows*lanes), grow(a.sums, len(a.moves)*lanes)
	for i := range a.moved {
		a.moved[i] = -math.MaxFloat32
	}
	clear(a.moved[len(a.moves)*lanes:])
	clear(a.sums)
	counts, assign := group(f.out.Counts, plane, f.out.Cores), group(f.out.Assign, plane, in.Tokens)
	for i, c := range assign {
		if c != dropped && counts[c] > 1 {
			kn.MaxRows(group(a.moved, int(a.place[c]), lanes), group(x.weights, i, lanes))
		}
	}
	for i, c := range assign {
		if c != dropped && counts[c] > 1 {
			at := int(a.place[c])
			kn.ExpRows(group(x.weights, i, lanes), group(a.moved, at, lanes), group(a.sums, at, lanes), x.none)
		}
	}
	for i, sum := range a.sums {
		a.moved[i] += float32(math.Log(float64(sum)))
	}
	return lanes
}

// foldBias moves a merged core's bias into its key, so that no kernel needs to know of it: k + bias f, with f such that q.f is
// one on average over the turned queries q and near one for each: the sum of all that aim found, divided by its mean product.
func (f *fitting) foldBias(worker, plane int, aimed bool) {
	a, out, in, kn := &f.scratch[worker], planeOf(f.pg, f.out, plane), f.pg.in, f.pg.kernel
	d, n, stride, wide := in.Dim, len(f.taught.set.asks), simd.Stride(in.Dim), simd.Wide(in.Dim)
	a.fold = grow(a.fold, d)
	clear(a.fold)
	along, scale := a.fold, 0.0
	if aimed {
		for r := range n {
			kn.Axpy(along, a.aims[r*wide:r*wide+d], 1)
		}
		scale = foldScale(kn, f.pg.askers[worker].turned(&f.taught.set, in, plane, 0, n), along, n, stride)
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
	f.nudge(a, out.v, a.rest, x.lanes, scaleOf(in.VScale, plane))
}
