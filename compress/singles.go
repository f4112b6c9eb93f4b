package compress

import (
	"math"
	"sync/atomic"
)

// prepareScores gets ready for judge.
func (w *work) prepareScores() {
	_, w.exact = w.Budget()
	if w.outlying() {
		w.bases(w.in.Positions[w.sinks:], w.chunks)
	}
	if len(w.left) < w.groups {
		w.left = make([]atomic.Int32, w.groups)
	}
	for g := range w.groups {
		w.left[g].Store(int32(w.blocks))
	}
}

// outlying reports whether tokens are judged by how far their keys lie from the mean direction.
func (w *work) outlying() bool { return (w.exact > 0 && w.opt.Keep == Outliers) || w.opt.Distinct }

// judge says for each token of a group how much it deserves to be exact and, when merges are weighed, what it costs to merge
// it.
func (w *work) judge(worker, g int) {
	if w.outlying() {
		for plane := g * w.heads; plane < (g+1)*w.heads; plane++ {
			w.meanDirection(worker, plane)
		}
	}
	if w.exact > 0 || w.opt.Distinct {
		w.scoreGroup(worker, g)
	}
	if w.opt.Weighs() {
		w.weigh(worker, g)
	}
}

// chooseExact finds the tokens that are never merged: the protected ones and, when the options give them a share of the
// budget, the outliers.
func (w *work) chooseExact(p *pool) {
	if w.opt.Across {
		w.markAcross(w.exact)
	}
	p.run(&w.phase, w.groups, w.singlesTask)
}

// meanDirection is the direction of the mean of a plane's un-rotated unit keys.
func (w *work) meanDirection(worker, plane int) {
	a, d := &w.arena[worker], w.in.Dim
	a.row = grow(a.row, d)
	mean := make64(a, d)
	for k := range w.chunks {
		copy(a.row, w.sums[(plane*len(w.chunks)+k)*d:][:d])
		cos, sin := w.base(k)
		unrotateRow(w.kernel, a.row, cos, sin, w.rope.Interleaved)
		for i, x := range a.row {
			mean[i] += float64(x)
		}
	}
	squares := 0.0
	for _, x := range mean {
		squares += x * x
	}
	inv := 1 / (math.Sqrt(squares) + 1e-9)
	out := group(w.mean, plane, d)
	for i, x := range mean {
		out[i] = float32(x * inv)
	}
}

// make64 is the arena's zeroed row of float64.
func make64(a *arena, d int) []float64 {
	a.wide = grow(a.wide, d)
	clear(a.wide)
	return a.wide
}

// chooseSingles does one group, and marks the other tokens of each chunk as candidates.
func (w *work) chooseSingles(_, g int) {
	single := group(w.single, g, w.n)
	if !w.opt.Across {
		copy(single, w.keep)
		if w.exact > 0 {
			w.mark(g, w.exact, group(w.score, g, w.n), single)
		}
	}
	if w.opt.Rest != Cluster {
		return
	}
	order, live := group(w.order, g, w.n), group(w.live, g, len(w.chunks)*w.words)
	clear(live)
	for k, c := range w.chunks {
		candidates := w.candidates(live, k)
		for r, i := range order[c.lo:c.hi] {
			if !single[c.lo+int(i)] {
				candidates[r/64] |= 1 << (r % 64)
			}
		}
	}
}

// scoreGroup says for each token of a group how much it deserves to be exact.
func (w *work) scoreGroup(worker, g int) {
	score := group(w.score, g, w.n)
	clear(score)
	for plane := g * w.heads; plane < (g+1)*w.heads; plane++ {
		switch {
		case w.told():
			for i, x := range group(w.in.Importance, plane, w.in.Tokens)[w.sinks : w.sinks+w.n] {
				score[i] += x
			}
		case w.opt.Keep == Outliers:
			w.outliers(worker, plane, score)
		case w.opt.Keep == SmallKeys:
			for i, n := range group(w.norm, plane, w.n) {
				score[i] -= n
			}
		default:
			w.attended(worker, plane, score)
		}
	}
}

// outliers adds 1 - u . mean direction to each token's score (KeyDiff's criterion, on un-rotated keys). The direction is
// turned to each chunk's first position, as the chunk's keys are.
func (w *work) outliers(worker, plane int, score []float32) {
	a, d := &w.arena[worker], w.in.Dim
	a.acc, a.row = grow(a.acc, d), grow(a.row, d)
	norms := group(w.norm, plane, w.n)
	for k := range w.chunks {
		c := &w.chunks[k]
		copy(a.acc, group(w.mean, plane, d))
		cos, sin := w.base(k)
		rotateRow(a.acc, cos, sin, w.rope.Interleaved)
		a.dots = grow(a.dots, c.len())
		w.alongKeys(a, a.dots, a.acc, plane, c)
		for i, dot := range a.dots {
			score[c.lo+i] += 1 - dot/(norms[c.lo+i]+1e-9)
		}
	}
}

// alongKeys writes to dst the dot products of direction and the keys of a chunk, turned back to its first position.
func (w *work) alongKeys(a *arena, dst, direction []float32, plane int, c *chunk) {
	if w.fused(w.distances(a, c)) {
		w.half.UnrotateDot(dst, direction, w.in.rows(w.in.K, plane, w.sinks+c.lo, c.len()), w.angles(), a.at)
		return
	}
	for i := range dst {
		w.unrotate(a, a.row, plane, c.lo+i, int(a.at[i]))
		dst[i] = w.kernel.Dot(a.row, direction)
	}
}

// attendedPool is how many neighbours share their attention, so that a token is kept with its surroundings (SnapKV).
const attendedPool = 7

// lastQueries is how far behind the page's last token a query counts as one of the last.
const lastQueries = 32

// isLast reports whether query i of a head was asked at the page's end, as all are of a page that does not say where.
func (in *Input) isLast(i int) bool {
	return in.QPositions == nil || in.QPositions[i] > in.Positions[in.Tokens-1]-lastQueries
}

// Last returns in with only those of its queries that were asked at the page's end, which [Attended] goes by.
func (in *Input) Last() Input {
	out := *in
	if in.QPositions == nil {
		return out
	}
	var last []int
	for i := range in.QWindow {
		if in.isLast(i) {
			last = append(last, i)
		}
	}
	size := in.Dim * in.QDType.Size()
	out.Q, out.QWindow, out.QPositions = make([]byte, 0, in.Layers*in.QHeads*len(last)*size), len(last), nil
	for head := range in.Layers * in.QHeads {
		for _, i := range last {
			out.Q = append(out.Q, in.Q[(head*in.QWindow+i)*size:][:size]...)
		}
	}
	return out
}

// attended adds the attention that the page's queries give to each token, averaged over its neighbours.
func (w *work) attended(worker, plane int, score []float32) {
	a, nq := &w.arena[worker], w.in.queries()
	a.acc = grow(a.acc, w.in.Tokens)
	clear(a.acc)
	kv := keysOf(w.in, nil, plane)
	for from := 0; from < nq; from += mostLanes {
		n := min(mostLanes, nq-from)
		w.given(a, w.in, plane, from, n)
		w.ask(a, n, kv, w.in.Dim, looksOnly)
		w.looks(a, kv, w.in.Dim, a.acc, func(q int) bool { return w.in.isLast((from + q) % w.in.QWindow) })
	}
	const half = attendedPool / 2
	for i := range score {
		at := w.sinks + i
		for j := max(at-half, 0); j <= min(at+half, w.in.Tokens-1); j++ {
			score[i] += a.acc[j] / attendedPool
		}
	}
}

// mark makes the tokens with the highest score singles.
func (w *work) mark(g, exact int, score []float32, single []bool) {
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

// markAcross makes the tokens with the highest score of all groups that share a budget singles: exact of them per group on
// average.
func (w *work) markAcross(exact int) {
	pool := w.Pool()
	for first := 0; first < w.groups; first += pool {
		idx := w.index[:0]
		for g := first; g < first+pool; g++ {
			copy(group(w.single, g, w.n), w.keep)
			for i, k := range w.keep {
				if !k {
					idx = append(idx, int32(g*w.n+i))
				}
			}
		}
		take := min(exact*pool, len(idx))
		if take > 0 {
			selectTop(idx, w.score, take)
		}
		for _, i := range idx[:take] {
			w.single[i] = true
		}
	}
}

// ranked is a token with its seed priority, packed so that plain integers sort into seed order: the more central first,
// then the lower index.
type ranked uint64

// rank takes indices below 2^20, as many as a page may have, and centralities within MaxChunk of zero, to 2^-32.
func rank(centrality float64, index int32, byPosition bool) ranked {
	key := uint64(0)
	if !byPosition {
		key = uint64((2*MaxChunk - centrality) * (1 << 32))
	}
	return ranked(key<<20 | uint64(index))
}

func (r ranked) index() int32 { return int32(r & (1<<20 - 1)) }
