package compress

import (
	"iter"
	"math"

	"github.com/semproxy/semproxy/defaults"
)

const (
	// ThresholdSteps is the resolution of a similarity threshold: t stands for t/1024.
	ThresholdSteps = 1024
	// MaxChunk is the longest chunk. Doubling stops there: a longer one costs more than it can merge.
	MaxChunk = defaults.MaxChunk
)

// Plan is what is known of a page before its keys are looked at: which of its tokens may merge, which planes share a clustering and a
// budget, how large that is, and what the age of a token and its head do to the cost of a merge. The CPU and the GPUs compute a page
// by the same plan.
//
// A plane is one (layer, head). A group is the set of planes that share one clustering: a plane, or all heads of a layer.
// Token indices of a plan count from the first token after the sinks.
type Plan struct {
	in  *Input
	opt *Options

	n             int // tokens between the sinks and the recent window
	sinks, recent int
	slots         int    // budget of a head for those n tokens
	groups, heads int    // number of groups, planes in each
	keep          []bool // [n], protected
}

// NewPlan plans a page. Both are checked; the plan refers to them.
func NewPlan(in *Input, opt *Options) *Plan {
	p := new(Plan)
	p.prepare(in, opt)
	return p
}

// prepare plans a page in the memory of the plan before.
func (p *Plan) prepare(in *Input, opt *Options) {
	p.in, p.opt = in, opt
	p.sinks = min(max(opt.Sinks-in.Before, 0), in.Tokens)
	p.recent = min(max(opt.Recent-in.Behind, 0), in.Tokens-p.sinks)
	if opt.Rest == Drop && opt.Exact == 0 { // a window: it takes the whole budget
		p.recent = min(max(opt.Slots(in.Tokens)-p.sinks, 0), in.Tokens-p.sinks)
		if p.sinks == 0 {
			p.recent = max(p.recent, 1) // a page is never emptied
		}
	}
	p.n = in.Tokens - p.sinks - p.recent
	p.groups, p.heads = in.planes(), 1
	if opt.Shared {
		p.groups, p.heads = in.Layers, in.Heads
	}
	p.protect()
	p.slots = opt.Slots(in.Tokens) - p.sinks - p.recent
}

// protect gathers the page's and the policy's protected tokens.
func (p *Plan) protect() {
	p.keep = grow(p.keep, p.n)
	clear(p.keep)
	if p.in.Protect != nil {
		for i, x := range p.in.Protect[p.sinks:][:p.n] {
			p.keep[i] = x != 0
		}
	}
	for _, s := range p.opt.Spans {
		for i := max(s.From-p.sinks, 0); i < min(s.To-p.sinks, p.n); i++ {
			p.keep[i] = true
		}
	}
}

// Edges are the numbers of tokens at the ends of the page that never merge, and of those between them.
func (p *Plan) Edges() (sinks, recent, between int) { return p.sinks, p.recent, p.n }

// Groups are how many there are, and the planes of each.
func (p *Plan) Groups() (groups, planes int) { return p.groups, p.heads }

// Protected marks the tokens that never merge. Read only.
func (p *Plan) Protected() []bool { return p.keep }

// Whole reports whether every token is kept.
func (p *Plan) Whole() bool { return p.n == 0 || (p.opt.Budget != Fixed && p.slots >= p.n) }

// Pool is how many groups share a budget.
func (p *Plan) Pool() int {
	switch p.opt.Budget {
	case Equal, Fixed:
		return 1
	case Layered:
		return p.groups / p.in.Layers
	}
	return p.groups
}

// Kept is the number of protected tokens.
func (p *Plan) Kept() int {
	kept := 0
	for _, k := range p.keep {
		if k {
			kept++
		}
	}
	return kept
}

// Budget is the number of slots that a head has for its tokens between the edges, and how many of them go to exact tokens.
// Protected tokens come out of the budget; one slot is always left for the rest.
func (p *Plan) Budget() (slots, exact int) {
	kept := p.Kept()
	free := max(p.slots-kept, 1)
	return free + kept, int(float64(free) * p.opt.Exact)
}

// Round is the least number of clusters, n at least, that with sinks and recent tokens makes whole granules of cores; or the
// largest number of them that the tokens allow.
func (p *Plan) Round(n int) int {
	granule, edge := max(p.opt.Granule, 1), p.sinks+p.recent
	up := (n + edge + granule - 1) / granule * granule
	if most := (p.n + edge) / granule * granule; most > edge && up > most {
		up = most
	}
	return up - edge
}

// Feasible reports whether the chunks leave room for the budget. least is the number of cores of each group when everything that may
// merge does.
func Feasible[T int | int32](p *Plan, least []T) bool {
	slots, _ := p.Budget()
	pool := p.Pool()
	for first := 0; first < p.groups; first += pool {
		total := 0
		for _, l := range least[first : first+pool] {
			total += p.Round(int(l))
		}
		if total > pool*slots {
			return false
		}
	}
	return true
}

// marks are the delimiters of the tokens between the edges; nil: there are none.
func (p *Plan) marks() []byte {
	if p.in.Boundary == nil {
		return nil
	}
	return p.in.Boundary[p.sinks : p.sinks+p.n]
}

// Chunks are the ranges [lo, hi) of tokens inside which tokens merge.
func (p *Plan) Chunks(minLen, maxLen int) iter.Seq2[int, int] {
	return func(yield func(lo, hi int) bool) {
		for _, c := range chunks(nil, p.marks(), p.n, minLen, maxLen) {
			if !yield(c.lo, c.hi) {
				return
			}
		}
	}
}

// Longer are the next lengths of chunks to try where the budget cannot be met; false where no longer ones help.
func (p *Plan) Longer(minLen, maxLen int) (longerMin, longerMax int, ok bool) {
	if p.opt.Rest != Cluster || p.opt.Budget == Fixed || maxLen >= MaxChunk {
		return minLen, maxLen, false
	}
	return min(2*minLen, MaxChunk), min(2*maxLen, MaxChunk), true
}

// Lowest is the threshold below every similarity. Weighed ones go down to the end of int16.
func (p *Plan) Lowest() int {
	if p.opt.Weighs() {
		return math.MinInt16
	}
	return -ThresholdSteps - 1
}

// Ages computes what the age of a token, its distance from the sequence's last, does to its weight: the geometric mean of age + Recency over all tokens, divided by
// the token's own. So weights are around one whatever the length of the page.
func (p *Plan) Ages(dst []float64) {
	if p.opt.Recency == 0 {
		for i := range dst {
			dst[i] = 1
		}
		return
	}
	last, logs := p.in.end()-1, 0.0
	for i := range dst {
		dst[i] = last - float64(p.in.Positions[p.sinks+i]) + p.opt.Recency
		logs += math.Log(dst[i])
	}
	mean := math.Exp(logs / float64(p.n))
	for i, a := range dst {
		dst[i] = mean / a
	}
}

// HeadWeight is the mean weight of a group's heads.
func (p *Plan) HeadWeight(g int) float64 {
	if p.opt.HeadWeights == nil {
		return 1
	}
	sum := 0.0
	for _, x := range group(p.opt.HeadWeights, g, p.heads) {
		sum += x
	}
	return sum / float64(p.heads)
}
