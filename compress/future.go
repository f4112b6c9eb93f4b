package compress

import (
	"math"
	"slices"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/internal/simd"
)

// The page's queries were asked inside the sequence; those that its cores will answer come after it. So each query is turned, as
// RoPE would turn it, to a position behind the sequence: what it looks at by content stays, what it looked at by distance goes.
//
// Three of four queries teach: they price tokens and fit the cores. The fourth is held out and only measures.

const (
	teachers     = 64  // turned queries of a KV head that teach, at most: the fit's system of equations is no larger
	teacherTurns = 2   // positions that one of them is turned to: with one the fit is worse, sixteen are no better
	measurers    = 8   // turned queries of a query head that measure, at most
	futureSpread = 512 // positions behind the sequence over which they are scattered
	heldOut      = 4   // one query in so many measures
)

// golden scatters positions evenly whatever their number: the fractional part of its multiples.
const golden = 0.6180339887498949

// ask is one turned query: which of the page's, and the row of its angle in the tables.
type ask struct{ head, query, turn int }

// future is a set of turned queries, the same for all planes. It holds no more than it asks, however many queries the page has.
type future struct {
	asks     []ask
	rows     map[int]int // of an angle among all that the page's queries could be turned by, to its row in cos and sin
	cos, sin []float32   // [rows, pairs]
	pairs    int         // of dimensions that an angle turns
}

// set chooses the turned queries of a page, n at most for a KV head, of kept of the page's queries, of which at gives the i-th,
// each turned to turns positions, and computes their angles.
func (f *future) set(in *Input, freq []float64, n, turns, kept int, at func(i int) int) {
	f.asks, f.cos, f.sin, f.pairs = f.asks[:0], f.cos[:0], f.sin[:0], len(freq)
	if f.rows == nil {
		f.rows = map[int]int{}
	}
	clear(f.rows)
	next := in.end()
	total := in.QHeads / in.Heads * kept * turns
	n = min(n, total)
	f.asks = slices.Grow(f.asks, n)
	for k := range n {
		s := k * total / n
		angle := s % (kept * turns)
		query := at(angle / turns)
		row, known := f.rows[angle]
		if !known {
			row = len(f.rows)
			f.rows[angle] = row
			_, frac := math.Modf(float64(angle) * golden)
			by := math.Floor(next+futureSpread*frac) - float64(in.queryPosition(query))
			for _, w := range freq {
				s, c := math.Sincos(by * w)
				f.cos, f.sin = append(f.cos, float32(c)), append(f.sin, float32(s))
			}
		}
		f.asks = append(f.asks, ask{head: s / (kept * turns), query: query, turn: row})
	}
}

// learn is the set that teaches.
func (f *future) learn(in *Input, freq []float64) {
	if in.QWindow < heldOut {
		f.set(in, freq, teachers, teacherTurns, in.QWindow, func(i int) int { return i })
		return
	}
	const of = heldOut - 1
	f.set(in, freq, teachers, teacherTurns, in.QWindow-in.QWindow/heldOut, func(i int) int { return i/of*heldOut + i%of })
}

// measured is how many of a query head's n queries measure.
func measured(n int) int {
	if n >= heldOut {
		n /= heldOut
	}
	return min(n, measurers)
}

// measure is the set that measures: as many of each query head.
func (f *future) measure(in *Input, freq []float64) {
	n := measured(in.QWindow) * (in.QHeads / in.Heads)
	if in.QWindow < heldOut {
		f.set(in, freq, n, 1, in.QWindow, func(i int) int { return i })
		return
	}
	f.set(in, freq, n, 1, in.QWindow/heldOut, func(i int) int { return i*heldOut + heldOut - 1 })
}

// Probes are queries of a page, turned to positions behind it. They may be reused.
type Probes struct {
	set  future
	rot  rotation
	q    []byte
	wide []float32
}

// Of returns in with these queries in place of its own, for [Compressor.Attend]: what attention over the cores loses is to be
// measured by queries that did not teach the cores, from where such queries will come. The page must carry queries.
func (p *Probes) Of(in *Input) (Input, error) {
	out, err := p.turn(in, p.set.measure)
	if err == nil {
		out.QHeads, out.QWindow = in.QHeads, len(p.set.asks)/(in.QHeads/in.Heads)
	}
	return out, err
}

// Teachers returns in with the queries that teach in place of its own, QWindow of them for each KV head: for a compressor that
// prices tokens and fits cores elsewhere. The page must carry queries.
func (p *Probes) Teachers(in *Input) (Input, error) {
	out, err := p.turn(in, p.set.learn)
	if err == nil {
		out.QHeads, out.QWindow = in.Heads, len(p.set.asks)
	}
	return out, err
}

// turn returns in with the turned queries that choose names in place of its own; how many of which head is the caller's to say.
func (p *Probes) turn(in *Input, choose func(in *Input, freq []float64)) (Input, error) {
	if in.Q == nil {
		return Input{}, badInput(codes.PageNoQueries, "the page carries no q: attention error cannot be measured")
	}
	if err := in.Check(); err != nil {
		return Input{}, err
	}
	if err := p.rot.use(in.Rope, false); err != nil {
		return Input{}, err
	}
	kn, h, d := simd.Best(), len(p.rot.all), in.Dim
	choose(in, p.rot.all)
	p.wide, p.q = grow(p.wide, d), grow(p.q, in.planes()*len(p.set.asks)*d*4)
	at := 0
	for plane := range in.planes() {
		first, size := in.firstQuery(plane), in.QDType.Size()
		for _, a := range p.set.asks {
			widen(kn, p.wide, in.Q[(first+(a.head*in.QWindow+a.query)*d)*size:], in.QDType, 1)
			rotateRow(p.wide, p.set.cos[a.turn*h:a.turn*h+h], p.set.sin[a.turn*h:a.turn*h+h], in.Rope.Interleaved)
			narrow(kn, p.q[at:at+4*d], p.wide, F32, 1)
			at += 4 * d
		}
	}
	out := *in
	out.Q, out.QDType, out.QPositions = p.q, F32, nil
	return out, nil
}

// queryPosition is the position that query i of each head was asked at.
func (in *Input) queryPosition(i int) int32 {
	if in.QPositions != nil {
		return in.QPositions[i]
	}
	if at := in.Tokens - in.QWindow + i; at >= 0 {
		return in.Positions[at]
	}
	return in.Positions[0] - int32(in.QWindow-in.Tokens-i) // the page is shorter than its window: they go on backwards
}

// turned are n of the plane's turned queries, from one on, scaled by 1/sqrt(dim): [n rounded up to 4, stride], in the asker's memory.
func (a *asker) turned(f *future, in *Input, plane, from, n int) []float32 {
	kn, d, stride, h := a.kernel, in.Dim, simd.Stride(in.Dim), f.pairs
	a.queries = grow(a.queries, (n+3)&^3*stride)
	clear(a.queries)
	first, size := in.firstQuery(plane), in.QDType.Size()
	for r, q := range f.asks[from : from+n] {
		row := a.queries[r*stride : r*stride+d]
		widen(kn, row, in.Q[(first+(q.head*in.QWindow+q.query)*d)*size:], in.QDType, 1)
		rotateRow(row, f.cos[q.turn*h:q.turn*h+h], f.sin[q.turn*h:q.turn*h+h], in.Rope.Interleaved)
		kn.Scale(row, float32(1/math.Sqrt(float64(d))))
	}
	return a.queries
}
