package gpu

import (
	"math"

	"github.com/semproxy/semproxy/compress"
)

const (
	thresholdSteps = 1024    // the grid of similarities, as compress has it
	maxChunk       = 1024    // longest chunk
	maxDim         = 256     // longest head the kernels have shared memory for
	maxTable       = 4096    // longest distance within a chunk
	maxRecency     = 1 << 20 // see compress.Options
	alone          = 128     // a chunk up to that long is one tile
	tileRows       = 64      // rows of a tile of a longer one
	nodes          = 3       // thresholds that a launch counts at
	maxTokens      = 1 << 20 // as compress
	maxPlanes      = 1 << 12 // layers times heads of a page
	maxCells       = 1 << 30 // elements of K and others, so that 32-bit indices hold
)

// plan is what is known of a page before its keys are looked at. Token indices count from the first after the sinks.
type plan struct {
	in  *compress.Input
	opt *compress.Options

	sinks, recent, n   int
	planes             int
	groups, groupHeads int
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
	longest            int // chunk
}

// newPlan says how the device takes a page, or why it does not. Both are checked.
func newPlan(in *compress.Input, opt *compress.Options) (*plan, reason, error) {
	p := &plan{in: in, opt: opt}
	freq, err := in.Rope.Frequencies()
	if err != nil {
		return nil, 0, err
	}
	if !opt.Rotated {
		p.freq, p.half = freq, len(freq)
	}
	p.sinks = min(opt.Sinks, in.Tokens)
	p.recent = min(opt.Recent, in.Tokens-p.sinks)
	p.n = in.Tokens - p.sinks - p.recent
	p.planes = in.Layers * in.Heads
	p.groups, p.groupHeads = p.planes, 1
	if opt.Shared {
		p.groups, p.groupHeads = in.Layers, in.Heads
	}
	middle := int(opt.Ratio*float64(in.Tokens)+1e-9) - p.sinks - p.recent
	switch {
	case opt.Rest != compress.Cluster || opt.HeadWeights != nil || (opt.Keep == compress.Attended && opt.Exact > 0 && in.Q == nil):
		return nil, reasonMethod, nil
	case p.n == 0 || (opt.Budget != compress.Fixed && middle >= p.n):
		return nil, reasonWhole, nil
	case in.Dim%16 != 0 || in.Dim > maxDim || p.half%8 != 0 || p.planes > maxPlanes || p.planes*in.Tokens > maxCells/in.Dim:
		return nil, reasonShape, nil
	}
	p.protect()
	p.budget(middle)
	p.cut(opt.ChunkMin, opt.ChunkMax)
	if p.tooWide() {
		return nil, reasonShape, nil
	}
	return p, 0, nil
}

// protect gathers the page's and the policy's protected tokens.
func (p *plan) protect() {
	p.keep = make([]byte, p.n)
	if p.in.Protect != nil {
		for i, x := range p.in.Protect[p.sinks:][:p.n] {
			if x != 0 {
				p.keep[i] = 1
			}
		}
	}
	for _, s := range p.opt.Spans {
		for i := max(s.From-p.sinks, 0); i < min(s.To-p.sinks, p.n); i++ {
			p.keep[i] = 1
		}
	}
}

// budget says how many slots a group has, and how many of them go to exact tokens. Protected tokens come out of the budget;
// one slot is always left for the rest.
func (p *plan) budget(middle int) {
	opt, kept := p.opt, 0
	for _, k := range p.keep {
		kept += int(k)
	}
	free := max(middle-kept, 1)
	p.slots = free + kept
	p.exact = int(float64(free) * opt.Exact)
	weighed := opt.Recency > 0 || opt.Distinct
	for _, f := range []struct {
		on   bool
		flag int
	}{
		{p.in.Rope.Interleaved, flagInterleaved}, {opt.ByPosition, flagByPosition}, {opt.PlainMean, flagPlainMean},
		{opt.Regular, flagRegular}, {opt.Across, flagAcross}, {weighed, flagWeighed}, {opt.Distinct, flagDistinct},
		{opt.Keep == compress.SmallKeys, flagSmallKeys},
		{opt.Keep == compress.Attended && p.exact > 0, flagAttended},
		{p.exact > 0 || opt.Distinct, flagNeedsScore},
		{(p.exact > 0 || opt.Distinct) && opt.Keep == compress.Outliers, flagNeedsMean},
	} {
		if f.on {
			p.flags |= f.flag
		}
	}
	if opt.Across {
		p.exact = min(p.exact*p.groups, p.groups*(p.n-kept))
	} else {
		p.exact = min(p.exact, p.n-kept)
	}
	p.lowest = -thresholdSteps - 1
	if weighed {
		p.lowest = math.MinInt16
	}
	p.fixed = int(math.Floor(opt.Threshold * thresholdSteps))
	// The bisection halves an interval until it is one; each launch takes two of its steps.
	steps := 0
	for d := thresholdSteps + 1 - p.lowest; d > 1; d = (d + 1) / 2 {
		steps++
	}
	p.launches = (steps + 1) / 2
}

// cut makes the chunks: one closes after a token when a delimiter ends it at minLen or more, at maxLen, or at the end.
func (p *plan) cut(minLen, maxLen int) {
	p.minLen, p.maxLen = minLen, maxLen
	p.chunks, p.tiles = p.chunks[:0], p.tiles[:0]
	p.chunkOf = make([]int32, p.n)
	var boundary []byte
	if p.in.Boundary != nil {
		boundary = p.in.Boundary[p.sinks:][:p.n]
	}
	positions := p.in.Positions[p.sinks:]
	start, sim := 0, 0
	p.span, p.longest = 0, 0
	for i := range p.n {
		p.chunkOf[i] = int32(len(p.chunks))
		l := i - start + 1
		if (boundary == nil || boundary[i] == 0 || l < minLen) && l < maxLen && i < p.n-1 {
			continue
		}
		ld := stride(l)
		if l <= alone {
			p.tiles = append(p.tiles, tile{chunk: int32(len(p.chunks)), rows: int32(l)})
		} else {
			for r := 0; r < l; r += tileRows {
				p.tiles = append(p.tiles, tile{chunk: int32(len(p.chunks)), first: int32(r), rows: int32(min(tileRows, l-r))})
			}
		}
		p.chunks = append(p.chunks, chunk{int32(start), int32(i + 1), int32(sim), int32(ld)})
		p.span = max(p.span, int(positions[i]-positions[start]))
		p.longest = max(p.longest, l)
		start = i + 1
		sim += l * ld
	}
	p.simLen = sim
}

func stride(n int) int { return (n + 15) &^ 15 }

// doubles reports whether longer chunks are tried for a budget that cannot be met.
func (p *plan) doubles() bool { return p.opt.Budget != compress.Fixed && p.maxLen < maxChunk }

// doubled is the plan with longer chunks.
func (p *plan) doubled() *plan {
	d := *p
	d.chunks, d.tiles = nil, nil
	d.cut(min(2*p.minLen, maxChunk), min(2*p.maxLen, maxChunk))
	return &d
}

// tooWide reports whether the chunks are more than the kernels have indices and angles for.
func (p *plan) tooWide() bool { return p.span >= maxTable || p.groups*p.simLen > maxCells }

// feasible reports whether the chunks leave room for the budget. least is the number of cores of each group when everything
// that may merge does.
func (p *plan) feasible(least []int32) bool {
	total := 0
	for _, l := range least {
		if p.opt.Budget == compress.Equal && int(l) > p.slots {
			return false
		}
		total += int(l)
	}
	return total <= p.groups*p.slots
}

// ages computes what the age of a token does to its weight, as compress does.
func (p *plan) ages(dst []float64) {
	if p.opt.Recency == 0 {
		for i := range dst {
			dst[i] = 1
		}
		return
	}
	last, logs := float64(p.in.Positions[p.in.Tokens-1]), 0.0
	for i := range dst {
		dst[i] = last - float64(p.in.Positions[p.sinks+i]) + p.opt.Recency
		logs += math.Log(dst[i])
	}
	mean := math.Exp(logs / float64(p.n))
	for i, a := range dst {
		dst[i] = mean / a
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
