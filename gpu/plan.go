package gpu

import (
	"math"

	"github.com/semproxy/semproxy/compress"
)

const (
	maxDim    = 256     // longest head the kernels have shared memory for
	maxTable  = 4096    // longest distance within a chunk
	alone     = 128     // a chunk up to that long is one tile
	tileRows  = 64      // rows of a tile of a longer one
	nodes     = 3       // thresholds that a launch counts at
	maxPlanes = 1 << 12 // layers times heads of a page
	maxCells  = 1 << 30 // elements of K and others, so that 32-bit indices hold
)

// plan is compress.Plan as the kernels take it.
type plan struct {
	*compress.Plan
	in  *compress.Input
	opt *compress.Options

	sinks, recent, n   int
	planes             int
	groups, groupHeads int
	pool               int // groups that share a budget
	slots, exact       int // budget of a group with its protected tokens, exact tokens to choose
	flags, lowest      int
	fixed, launches    int
	freq               []float64
	half               int
	keep               []byte
	minLen, maxLen     int
	chunks             []chunk
	tiles              []tile
	chunkOf            []int32
	span, simLen       int
	longest            int            // chunk
	teach              compress.Input // the page with the queries that teach in place of its own; no Q: nothing teaches
	last               compress.Input // the page with its last queries only, which choose the exact tokens
}

// newPlan says how the device takes a page, or why it does not. Both are checked.
func newPlan(in *compress.Input, opt *compress.Options) (*plan, reason, error) {
	p := &plan{Plan: compress.NewPlan(in, opt), in: in, opt: opt}
	freq, err := in.Rope.Frequencies()
	if err != nil {
		return nil, 0, err
	}
	if !opt.Rotated {
		p.freq, p.half = freq, len(freq)
	}
	p.sinks, p.recent, p.n = p.Edges()
	p.groups, p.groupHeads = p.Groups()
	p.planes, p.pool = p.groups*p.groupHeads, p.Pool()
	switch {
	case opt.Rest != compress.Cluster || (opt.HeadWeights != nil && len(opt.HeadWeights) != p.planes) || (opt.Keep == compress.Attended && opt.Exact > 0 && in.Q == nil) || opt.Fold && in.Q == nil:
		return nil, reasonMethod, nil
	case p.Whole():
		return nil, reasonWhole, nil
	case in.Dim%16 != 0 || in.Dim > maxDim || p.half%8 != 0 || p.planes > maxPlanes || p.planes*in.Tokens > maxCells/in.Dim:
		return nil, reasonShape, nil
	}
	if in.Q != nil && (opt.Fit || opt.Fold || opt.Attention && in.Importance == nil) {
		if p.teach, err = new(compress.Probes).Teachers(in); err != nil {
			return nil, 0, err
		}
	}
	p.budget()
	if p.flags&flagAttended != 0 {
		p.last = in.Last()
	}
	p.cut(opt.ChunkMin, opt.ChunkMax)
	if p.tooWide() {
		return nil, reasonShape, nil
	}
	return p, 0, nil
}

// budget says how many slots a group has, how many exact tokens those that share a budget choose, and what the kernels are to do.
func (p *plan) budget() {
	opt := p.opt
	p.keep = make([]byte, p.n)
	for i, k := range p.Protected() {
		if k {
			p.keep[i] = 1
		}
	}
	p.slots, p.exact = p.Budget()
	important := opt.Attention && p.in.Importance != nil
	outlying := (p.exact > 0 || opt.Distinct) && opt.Keep == compress.Outliers && !important
	for _, f := range []struct {
		on   bool
		flag int
	}{
		{p.in.Rope.Interleaved, flagInterleaved}, {opt.ByPosition, flagByPosition}, {opt.PlainMean, flagPlainMean},
		{opt.Regular, flagRegular}, {opt.Across, flagAcross}, {opt.Weighs(), flagWeighed}, {opt.Distinct && !important, flagDistinct},
		{opt.Keep == compress.SmallKeys, flagSmallKeys},
		{opt.Keep == compress.Attended && p.exact > 0, flagAttended},
		{p.exact > 0 || opt.Distinct, flagNeedsScore},
		{outlying, flagNeedsMean},
		{important || opt.Attention && p.teach.Q != nil, flagLooked}, {important, flagImportant},
		{opt.Fit && p.teach.Q != nil, flagFit}, {opt.Fold, flagFold},
	} {
		if f.on {
			p.flags |= f.flag
		}
	}
	p.exact = min(p.exact, p.n-p.Kept())
	if opt.Across {
		p.exact *= p.pool
	}
	p.lowest = p.Lowest()
	p.fixed = int(math.Floor(opt.Threshold * compress.ThresholdSteps))
	// The bisection halves an interval until it is one; each launch takes two of its steps.
	steps := 0
	for d := compress.ThresholdSteps + 1 - p.lowest; d > 1; d = (d + 1) / 2 {
		steps++
	}
	p.launches = (steps + 1) / 2
}

// cut makes the chunks, and the tiles of their similarities.
func (p *plan) cut(minLen, maxLen int) {
	p.minLen, p.maxLen = minLen, maxLen
	p.chunks, p.tiles = p.chunks[:0], p.tiles[:0]
	p.chunkOf = make([]int32, p.n)
	positions, sim := p.in.Positions[p.sinks:], 0
	p.span, p.longest = 0, 0
	for lo, hi := range p.Chunks(minLen, maxLen) {
		of, l := int32(len(p.chunks)), hi-lo
		for i := lo; i < hi; i++ {
			p.chunkOf[i] = of
		}
		ld := stride(l)
		if l <= alone {
			p.tiles = append(p.tiles, tile{chunk: of, rows: int32(l)})
		} else {
			for r := 0; r < l; r += tileRows {
				p.tiles = append(p.tiles, tile{chunk: of, first: int32(r), rows: int32(min(tileRows, l-r))})
			}
		}
		p.chunks = append(p.chunks, chunk{int32(lo), int32(hi), int32(sim), int32(ld)})
		p.span = max(p.span, int(positions[hi-1]-positions[lo]))
		p.longest = max(p.longest, l)
		sim += l * ld
	}
	p.simLen = sim
}

func stride(n int) int { return (n + 15) &^ 15 }

// doubles reports whether longer chunks are tried for a budget that cannot be met.
func (p *plan) doubles() bool {
	_, _, ok := p.Longer(p.minLen, p.maxLen)
	return ok
}

// doubled is the plan with longer chunks.
func (p *plan) doubled() *plan {
	d := *p
	d.chunks, d.tiles = nil, nil
	minLen, maxLen, _ := p.Longer(p.minLen, p.maxLen)
	d.cut(minLen, maxLen)
	return &d
}

// tooWide reports whether the chunks are more than the kernels have indices and angles for.
func (p *plan) tooWide() bool { return p.span >= maxTable || p.groups*p.simLen > maxCells }

// kind is the budget as the kernels know it: groups that share one and have quotas are layered, whichever they are.
func (p *plan) kind() compress.Budget {
	if p.opt.Pooled() {
		return compress.Layered
	}
	return p.opt.Budget
}

// factors are the mean weights of the groups' heads.
func (p *plan) factors(dst []float64) {
	for g := range dst {
		dst[g] = p.HeadWeight(g)
	}
}

// team is the number of lanes that share a row: 16 elements each, a power of two.
func team(dim int) int {
	t := 1
	for 16*t < dim {
		t *= 2
	}
	return t
}
