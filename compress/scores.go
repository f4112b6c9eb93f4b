package compress

import "math"

// scores say how much each token deserves to be kept exactly, and choose those that are.
type scores struct {
	pg      *page
	keys    *unitKeys
	exact   int       // tokens per group that the budget keeps exact
	score   []float32 // [groups, n]
	mean    []float32 // [planes, dim], mean direction of the un-rotated unit keys
	index   []int32   // [groups, n], scratch of the selection
	bases   bases
	scratch []scoreScratch // [workers]
}

// scoreScratch is one worker's.
type scoreScratch struct {
	row, direction []float32 // [dim]
	sum            []float64 // [dim]
	dots           []float32 // [chunk]
	looks          []float32 // [tokens]
	turning
}

// begin gets ready for chunks, whose keys are made by keys.
func (s *scores) begin(pg *page, keys *unitKeys) {
	s.pg, s.keys = pg, keys
	_, s.exact = pg.Budget()
	gn := pg.groups * pg.n
	s.score, s.index, s.mean = grow(s.score, gn), grow(s.index, gn), grow(s.mean, pg.in.planes()*pg.in.Dim)
	if s.outlying() {
		s.bases.set(pg.freq, pg.in.Positions[pg.sinks:], keys.lay.chunks)
	}
}

// of is how much each token of a group deserves it, [n], once the group has been judged.
func (s *scores) of(g int) []float32 { return group(s.score, g, s.pg.n) }

// outlying reports whether tokens are judged by how far their keys lie from the mean direction.
func (s *scores) outlying() bool {
	return (s.exact > 0 && s.pg.opt.Keep == Outliers) || s.pg.opt.Distinct
}

// judge does one group, whose unit keys have all been made, unless nobody asks for its scores.
func (s *scores) judge(worker, g int) {
	pg, score := s.pg, s.of(g)
	from, to := pg.planesOf(g)
	if s.outlying() {
		for plane := from; plane < to; plane++ {
			s.meanDirection(worker, plane)
		}
	}
	if s.exact == 0 && !pg.opt.Distinct {
		return
	}
	clear(score)
	for plane := from; plane < to; plane++ {
		switch {
		case pg.told():
			for i, x := range group(pg.in.Importance, plane, pg.in.Tokens)[pg.sinks : pg.sinks+pg.n] {
				score[i] += x
			}
		case pg.opt.Keep == Outliers:
			s.outliers(worker, plane, score)
		case pg.opt.Keep == SmallKeys:
			for i, n := range group(s.keys.norm, plane, pg.n) {
				score[i] -= n
			}
		default:
			s.attended(worker, plane, score)
		}
	}
}

// meanDirection is the direction of the mean of a plane's un-rotated unit keys.
func (s *scores) meanDirection(worker, plane int) {
	a, pg, d := &s.scratch[worker], s.pg, s.pg.in.Dim
	a.row, a.sum = grow(a.row, d), grow(a.sum, d)
	clear(a.sum)
	for k := range s.keys.lay.chunks {
		copy(a.row, s.keys.sum(plane, k))
		cos, sin := s.bases.of(k)
		unrotateRow(pg.kernel, a.row, cos, sin, pg.rope.Interleaved)
		for i, x := range a.row {
			a.sum[i] += float64(x)
		}
	}
	squares := 0.0
	for _, x := range a.sum {
		squares += x * x
	}
	inv := 1 / (math.Sqrt(squares) + 1e-9)
	out := group(s.mean, plane, d)
	for i, x := range a.sum {
		out[i] = float32(x * inv)
	}
}

// outliers adds 1 - u . mean direction to each token's score (KeyDiff's criterion, on un-rotated keys). The direction is
// turned to each chunk's first position, as the chunk's keys are.
func (s *scores) outliers(worker, plane int, score []float32) {
	a, pg, d := &s.scratch[worker], s.pg, s.pg.in.Dim
	a.direction = grow(a.direction, d)
	norms := group(s.keys.norm, plane, pg.n)
	for k := range s.keys.lay.chunks {
		c := &s.keys.lay.chunks[k]
		copy(a.direction, group(s.mean, plane, d))
		cos, sin := s.bases.of(k)
		rotateRow(a.direction, cos, sin, pg.rope.Interleaved)
		a.dots = grow(a.dots, c.len())
		a.alongKeys(pg, plane, c)
		for i, dot := range a.dots {
			score[c.lo+i] += 1 - dot/(norms[c.lo+i]+1e-9)
		}
	}
}

// alongKeys writes to dots the products of direction and the keys of a chunk, turned back to its first position.
func (a *scoreScratch) alongKeys(pg *page, plane int, c *chunk) {
	if pg.fused(a.measure(pg, c)) {
		pg.half.UnrotateDot(a.dots, a.direction, pg.in.rows(pg.in.K, plane, pg.sinks+c.lo, c.len()), pg.angles(), a.distances)
		return
	}
	a.row = grow(a.row, pg.in.Dim)
	for i := range a.dots {
		pg.unrotate(&a.turning, a.row, plane, c.lo+i, int(a.distances[i]))
		a.dots[i] = pg.kernel.Dot(a.row, a.direction)
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
func (s *scores) attended(worker, plane int, score []float32) {
	pg, in, a := s.pg, s.pg.in, &s.pg.askers[worker]
	looks, nq := grow(s.scratch[worker].looks, in.Tokens), in.queries()
	s.scratch[worker].looks = looks
	clear(looks)
	kv := entriesOf(in, nil, plane)
	for from := 0; from < nq; from += mostLanes {
		n := min(mostLanes, nq-from)
		a.ask(a.given(in, plane, from, n), n, kv, in.Dim, looksOnly)
		a.looks(kv, in.Dim, looks, func(q int) bool { return in.isLast((from + q) % in.QWindow) })
	}
	const half = attendedPool / 2
	for i := range score {
		at := pg.sinks + i
		for j := max(at-half, 0); j <= min(at+half, in.Tokens-1); j++ {
			score[i] += looks[j] / attendedPool
		}
	}
}

// mark makes the protected tokens of a group singles, and those with the highest score.
func (s *scores) mark(g int, single []bool) {
	copy(single, s.pg.keep)
	if s.exact == 0 {
		return
	}
	idx := group(s.index, g, s.pg.n)[:0]
	for i, k := range s.pg.keep {
		if !k {
			idx = append(idx, int32(i))
		}
	}
	take := min(s.exact, len(idx))
	selectTop(idx, s.of(g), take)
	for _, i := range idx[:take] {
		single[i] = true
	}
}

// markAcross does so for all groups, single being [groups, n]: those that share a budget compete, for exact of them per group on
// average.
func (s *scores) markAcross(single []bool) {
	pg, pool := s.pg, s.pg.Pool()
	for first := 0; first < pg.groups; first += pool {
		idx := s.index[:0]
		for g := first; g < first+pool; g++ {
			copy(group(single, g, pg.n), pg.keep)
			for i, k := range pg.keep {
				if !k {
					idx = append(idx, int32(g*pg.n+i))
				}
			}
		}
		take := min(s.exact*pool, len(idx))
		if take > 0 {
			selectTop(idx, s.score, take)
		}
		for _, i := range idx[:take] {
			single[i] = true
		}
	}
}
