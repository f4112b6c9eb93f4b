// Package oracle is the definition of the compression in float64: slow, plain, one loop after another, and independent of
// the fast path, which is tested against it. It calls no dispatcher and shares no code with package compress but the types.
package oracle

import (
	"math"
	"sort"

	"github.com/semproxy/semproxy/compress"
)

// Head is one compressed (layer, head). Slices run over cores in output order (sinks, clusters in seed order, recent),
// Label over the tokens between sinks and recent window (cluster index, sinks not counted).
type Head struct {
	K, V      [][]float64
	Count     []int
	Bias      []float64
	Position  []float64
	Label     []int
	Threshold int
}

// Page is the part of the input that the oracle needs, widened to float64: K and V are [layer][head][token][dim].
type Page struct {
	K, V      [][][][]float64
	Positions []int32
	Before    int // tokens of the sequence before the page
	Behind    int // and after it
	Boundary  []byte
	Protect   []byte
	Freq      []float64 // rotation per position of each pair of the rotary dimensions

	Q          [][][][]float64 // [layer][query head][query][dim], after RoPE; nil: none
	QPositions []int32         // [query]; nil: those of the last tokens
	Importance [][]float64     // [layer x head][token]; nil: none
	Pairs      bool            // interleaved
}

const steps = 1024

type problem struct {
	sim    [][]float64 // [n][n]
	lo, hi []int
	order  []int
	exact  []bool
	quota  int
	weight []int // of the cost of merging a token, in 1/256; nil: similarities are not weighed
}

// Compress returns the heads of every layer, [layer][head].
func Compress(p *Page, opt compress.Options) [][]Head {
	n := len(p.Positions)
	sinks := min(max(opt.Sinks-p.Before, 0), n)
	recent := min(max(opt.Recent-p.Behind, 0), n-sinks)
	nm := n - sinks - recent
	slots := int(opt.Ratio*float64(n) + 1e-9)
	if opt.Granule > 1 && (!opt.Pooled() || slots < opt.Granule) {
		slots = max(slots/opt.Granule, 1) * opt.Granule
	}
	slots -= sinks + recent
	keep, kept := protected(p, opt.Spans, sinks, nm)
	whole := nm == 0 || (opt.Budget != compress.Fixed && slots >= nm)
	free := max(slots-kept, 1)
	slots = free + kept
	exact := int(float64(free) * opt.Exact)

	layers, heads := len(p.K), len(p.K[0])
	per := 1
	if opt.Shared {
		per = heads
	}
	groups := layers * heads / per
	pre := make([][][]float64, layers*heads)
	for i := range pre {
		pre[i] = unrotate(p, p.K[i/heads][i%heads][sinks:sinks+nm], sinks, opt.Rotated)
	}
	scores := make([][]float64, groups)
	for g := range scores {
		scores[g] = outlierScore(pre[g*per : (g+1)*per])
	}
	asked := learn(p, opt, whole)
	look := asked.look
	if opt.Attention && p.Importance != nil {
		look = p.Importance
		byImportance(scores, look, per, sinks)
	}
	pool := groups
	if opt.Budget == compress.Layered {
		pool = groups / layers
	}
	singles := choose(scores, keep, exact, pool, opt.Across)
	var weights [][]int
	if opt.Recency > 0 || opt.Distinct || opt.Attention || opt.HeadWeights != nil {
		weights = weigh(p, sinks, scores, look, per, opt)
	}
	minLen, maxLen := opt.ChunkMin, opt.ChunkMax
	problems := make([]problem, groups)
	best := make([]int, groups)
	for {
		for g := range problems {
			problems[g] = pose(p, pre[g*per:(g+1)*per], singles[g], sinks, minLen, maxLen, opt.ByPosition)
			if weights != nil {
				problems[g].weight = weights[g]
			}
		}
		if whole || solve(problems, best, slots, layers, sinks+recent, opt) || maxLen >= 1024 {
			break
		}
		minLen, maxLen = min(2*minLen, 1024), min(2*maxLen, 1024)
	}
	out := make([][]Head, layers)
	for l := range out {
		out[l] = make([]Head, heads)
		for h := range out[l] {
			i := l*heads + h
			label, count, t := alone(nm), nm, compress.Unmerged
			if !whole {
				t = best[i/per]
				label, count = problems[i/per].cluster(t)
				if opt.Pooled() {
					label, count = problems[i/per].fill(label, count)
				}
			}
			out[l][h] = merge(p, l, h, pre[i], matter(look, i, sinks, nm), label, count, sinks, recent, opt)
			out[l][h].Threshold = t
			asked.fit(p, l, h, sinks, &out[l][h], moving(label, count, keep, sinks, recent), opt)
		}
	}
	return out
}

// moving says which cores of a head may have other values than their members' mean: those between the edges, but for protected tokens.
func moving(label []int, count int, keep []bool, sinks, recent int) []bool {
	out := make([]bool, sinks+count+recent)
	for c := range count {
		out[sinks+c] = true
	}
	for i, k := range keep {
		if k {
			out[sinks+label[i]] = false
		}
	}
	return out
}

// alone labels n tokens as a cluster each.
func alone(n int) []int {
	label := make([]int, n)
	for i := range label {
		label[i] = i
	}
	return label
}

// protected are the n tokens after the sinks that may not merge, and how many they are.
func protected(p *Page, spans []compress.Span, sinks, n int) (keep []bool, kept int) {
	keep = make([]bool, n)
	for i := range keep {
		keep[i] = p.Protect != nil && p.Protect[sinks+i] != 0
		for _, s := range spans {
			keep[i] = keep[i] || (s.From <= sinks+i && sinks+i < s.To)
		}
		if keep[i] {
			kept++
		}
	}
	return keep, kept
}

// byImportance makes the sum over a group's heads of what the page says its scores.
func byImportance(scores, importance [][]float64, per, sinks int) {
	for g := range scores {
		for i := range scores[g] {
			scores[g][i] = 0
			for h := g * per; h < (g+1)*per; h++ {
				scores[g][i] += importance[h][sinks+i]
			}
		}
	}
}

func unrotate(p *Page, k [][]float64, first int, rotated bool) [][]float64 {
	out := make([][]float64, len(k))
	for i, row := range k {
		out[i] = append([]float64(nil), row...)
		if !rotated {
			rotate(out[i], p.Freq, -float64(p.Positions[first+i]), p.Pairs)
		}
	}
	return out
}

func rotate(x, freq []float64, pos float64, pairs bool) {
	for i, f := range freq {
		a, b := i, i+len(freq)
		if pairs {
			a, b = 2*i, 2*i+1
		}
		s, c := math.Sincos(pos * f)
		x[a], x[b] = x[a]*c-x[b]*s, x[b]*c+x[a]*s
	}
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i := range a {
		s += a[i] * b[i]
	}
	return s
}

func unit(x []float64) []float64 {
	u := make([]float64, len(x))
	l := math.Sqrt(dot(x, x)) + 1e-9
	for i := range x {
		u[i] = x[i] / l
	}
	return u
}

// pose computes similarities, chunks, singles and seed order of one group.
func pose(p *Page, pre [][][]float64, exact []bool, first, minLen, maxLen int, byPosition bool) problem {
	n := len(exact)
	q := problem{sim: make([][]float64, n), lo: make([]int, n), hi: make([]int, n), order: make([]int, n), exact: exact}
	start := 0
	for i := range n {
		l := i - start + 1
		if (p.Boundary != nil && p.Boundary[first+i] != 0 && l >= minLen) || l >= maxLen || i == n-1 {
			for j := start; j <= i; j++ {
				q.lo[j], q.hi[j] = start, i+1
			}
			start = i + 1
		}
	}
	for i := range q.sim {
		q.sim[i] = make([]float64, n)
		q.order[i] = i
	}
	for _, head := range pre {
		u := make([][]float64, n)
		for i := range u {
			u[i] = unit(head[i])
		}
		for i := range u {
			for j := q.lo[i]; j < q.hi[i]; j++ {
				q.sim[i][j] += dot(u[i], u[j]) / float64(len(pre))
			}
		}
	}
	if !byPosition {
		cent := make([]float64, n)
		for i := range cent {
			for j := q.lo[i]; j < q.hi[i]; j++ {
				cent[i] += q.sim[i][j]
			}
		}
		sort.SliceStable(q.order, func(a, b int) bool { return cent[q.order[a]] > cent[q.order[b]] })
	}
	return q
}

// cluster is GSC at threshold t/1024.
func (q *problem) cluster(t int) (label []int, count int) {
	tau := float64(t) / steps
	label = make([]int, len(q.lo))
	for i := range label {
		label[i] = -1
	}
	for _, s := range q.order {
		if label[s] >= 0 {
			continue
		}
		if !q.exact[s] {
			for j := q.lo[s]; j < q.hi[s]; j++ {
				if label[j] < 0 && !q.exact[j] && (q.weight == nil && q.sim[s][j] >= tau || q.weight != nil && q.weighed(s, j) >= t) {
					label[j] = count
				}
			}
		}
		label[s] = count
		count++
	}
	return label, count
}

// solve bisects the thresholds; false when even the lowest one leaves too many cores.
func solve(qs []problem, best []int, slots, layers, edge int, opt compress.Options) bool {
	if opt.Budget == compress.Fixed {
		for g := range best {
			best[g] = int(math.Floor(opt.Threshold * steps))
		}
		return true
	}
	total := func(gs []problem, t int) int {
		n := 0
		for i := range gs {
			_, c := gs[i].cluster(t)
			n += c
		}
		return n
	}
	bisect := func(gs []problem, most int, largest bool) (int, bool) {
		lo, hi := -steps-1, steps+1
		if gs[0].weight != nil {
			lo = math.MinInt16
		}
		best, count := lo, total(gs, lo)
		if count > most {
			return lo, false
		}
		for hi-lo > 1 {
			t := int(math.Floor(float64(lo+hi) / 2))
			if c := total(gs, t); c <= most {
				if c >= count || !largest {
					best, count = t, c
				}
				lo = t
			} else {
				hi = t
			}
		}
		return best, true
	}
	switch {
	case opt.Pooled():
		ok, pool := true, len(qs)
		if opt.Budget == compress.Layered {
			pool /= layers
		}
		for i := 0; i < len(qs); i += pool {
			ok = pooled(qs[i:][:pool], best[i:][:pool], pool*slots, edge, max(opt.Granule, 1)) && ok
		}
		return ok
	case opt.Budget == compress.Adaptive:
		t, ok := bisect(qs, len(qs)*slots, false)
		for g := range best {
			best[g] = t
		}
		return ok
	}
	all := true
	for g := range qs {
		t, ok := bisect(qs[g:g+1], slots, true)
		best[g] = t
		all = all && ok
	}
	return all
}

func merge(p *Page, l, h int, pre [][]float64, matter []float64, label []int, count, sinks, recent int, opt compress.Options) Head {
	k, v := p.K[l][h], p.V[l][h]
	out := Head{Label: label}
	one := func(i int) {
		out.K, out.V = append(out.K, k[i]), append(out.V, v[i])
		out.Count, out.Position = append(out.Count, 1), append(out.Position, float64(p.Positions[i]))
	}
	for i := range sinks {
		one(i)
	}
	for c := range count {
		var ms []int
		sum := 0.0
		for i, x := range label {
			if x == c {
				ms = append(ms, i)
				sum += matter[i]
			}
		}
		d := len(k[0])
		mk, mv, length, pos := make([]float64, d), make([]float64, d), 0.0, 0.0
		for _, i := range ms {
			w := matter[i] / sum
			for j := range d {
				mk[j] += w * pre[i][j]
				mv[j] += w * v[sinks+i][j]
			}
			length += w * math.Sqrt(dot(pre[i], pre[i]))
			pos += w * float64(p.Positions[sinks+i])
		}
		if !opt.PlainMean {
			mk = unit(mk)
			for j := range mk {
				mk[j] *= length
			}
		}
		if !opt.Rotated {
			rotate(mk, p.Freq, pos, p.Pairs)
		}
		out.K, out.V = append(out.K, mk), append(out.V, mv)
		out.Count, out.Position = append(out.Count, len(ms)), append(out.Position, pos)
	}
	for i := range recent {
		one(sinks + len(label) + i)
	}
	return out
}
