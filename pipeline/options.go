package pipeline

import (
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
)

// presets are the methods of a policy in the compressor's terms. MethodNone keeps every token by its ratio.
var presets = map[policy.Method]func() compress.Options{
	policy.MethodNone: compress.Semantic, policy.MethodWeighted: compress.Weighted, policy.MethodSemantic: compress.Semantic, policy.MethodPaper: compress.Paper,
	policy.MethodHybrid: compress.Hybrid, policy.MethodUniform: compress.Uniform, policy.MethodWindow: compress.Window,
	policy.MethodKeyNorm: compress.KeyNorm, policy.MethodAttention: compress.SnapKV,
}

// options are a resolved profile in the compressor's terms, for a page whose sender wants folded cores or whole granules of
// them: the method's preset, then what the profile says.
func options(p *policy.Profile, folded bool, granule int) compress.Options {
	o := presets[p.Method]()
	o.Ratio = p.Ratio
	o.Fold = folded && o.Rest != compress.Drop && p.Ratio < 1 // what is one token has no bias to fold
	if p.Method == policy.MethodNone {
		o.Fold = false
		return o
	}
	o.Sinks, o.Recent = p.Protect.Sinks, p.Protect.Recent
	for _, s := range p.Protect.Spans {
		o.Spans = append(o.Spans, compress.Span{From: s.From, To: s.To})
	}
	if p.FP8 {
		o.FP8 = compress.F8E4M3
	}
	if !p.Method.Clusters() {
		return o
	}
	o.Exact, o.Regular = p.Exact, p.Regular
	o.Shared = p.Clusters == policy.ClustersShared
	o.ChunkMin, o.ChunkMax = p.Chunk.Min, p.Chunk.Max
	switch {
	case p.Threshold != nil:
		o.Budget, o.Threshold = compress.Fixed, *p.Threshold
	case p.Budget == policy.BudgetEqual:
		o.Budget, o.Across = compress.Equal, false // every head has its own budget
	case p.Budget == policy.BudgetLayered:
		o.Budget = compress.Layered
	default:
		o.Budget = compress.Adaptive
	}
	if o.Budget != compress.Fixed && (o.Budget != compress.Equal || o.Regular) {
		o.Granule = granule
	}
	return o
}
