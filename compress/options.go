package compress

import (
	"math"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/defaults"
)

// Budget says how the slots are spread.
type Budget uint8

const (
	// Equal gives every layer the same number of slots, which is what paged engines take.
	Equal Budget = iota
	// Adaptive finds one threshold over all layers and heads of the page and lets each keep what it needs (ragged).
	Adaptive
	// Fixed takes Options.Threshold as it is; the number of cores follows.
	Fixed
	// Layered gives every layer the same number of slots and finds a threshold for each, so that its heads keep what they need:
	// a paged engine whose heads have block tables of their own holds such cores in blocks that are as many for every layer.
	Layered
)

// String names the budget as a policy does.
func (b Budget) String() string { return [...]string{"equal", "adaptive", "fixed", "layered"}[b] }

// Keep says which tokens get the exact share of the budget.
type Keep uint8

const (
	// Outliers are the tokens whose un-rotated key lies furthest from the mean direction.
	Outliers Keep = iota
	// SmallKeys are the tokens with the shortest keys.
	SmallKeys
	// Attended are the tokens that the page's last queries look at most (SnapKV: the weights are summed over queries and
	// averaged over neighbours). The page must carry queries.
	Attended
)

// Rest says what becomes of the tokens that are neither protected nor exact.
type Rest uint8

const (
	// Cluster merges those that mean the same.
	Cluster Rest = iota
	// Stride merges neighbours, as many at a time as the budget demands.
	Stride
	// Drop forgets them: eviction. Counts then sum to less than the tokens given.
	Drop
)

// Options choose the variant of the algorithm. Start from [Semantic] or [Paper].
type Options struct {
	Ratio     float64 // cores / tokens to aim at, in (0, 1]; 1 keeps every token
	Budget    Budget
	Threshold float64 // similarity in [-1, 1], for Fixed; used on the grid of 1/1024
	Shared    bool    // one clustering for all heads of a layer
	Exact     float64 // share of the budget, in [0, 1], that goes unmerged to the tokens that Keep names
	Keep      Keep
	Rest      Rest
	Regular   bool // Equal: meet the budget to the core, so that all heads have one shape; the worst members leave their clusters
	// Across lets the exact tokens compete over all heads that share a budget, of the page (Adaptive) or of a layer (Layered),
	// instead of giving each head the same share.
	Across bool
	// Granule, when more than one, makes the number of cores of every head a multiple of it, such as an engine's block size, as
	// far as the head has so many tokens. Not with Fixed, nor with Equal that is not Regular.
	Granule int
	// Recency, when positive, makes recent tokens dearer to merge: a merge costs (1 - similarity) / (age + Recency) and the
	// threshold applies to that cost, where age is the distance in positions from the last token.
	Recency float64
	// Distinct makes unusual tokens dearer to merge: the cost is multiplied by the root of the outlier score.
	Distinct bool
	// Attention makes tokens dearer to merge that the page's queries look at, or that the page's importance names, which then
	// chooses the exact tokens too; and members of a core weigh by it. It does nothing to a page with neither.
	Attention bool
	// Fit moves the keys of merged cores so that they get of the page's queries, turned to positions behind the page, the attention that
	// their members got, and then the values of cores so that attention over the cores gives these queries what attention over the
	// originals gave them. Sinks, recent and protected tokens keep theirs. It does nothing to a page without queries.
	Fit bool
	// Fold moves the bias of merged cores into their keys, along the mean query: every bias is 0 then, and any attention kernel
	// reads the cores. A page without queries is refused.
	Fold bool
	// HeadWeights, [Layers, Heads] of the page, make merges in some KV heads dearer: a merge's cost is multiplied by its head's
	// weight (by the mean, where heads share a clustering), so that at the same total that head keeps more. 1 is neutral, nil is
	// all 1. They belong to a model and are measured on it: docs/explanation/algorithm.md. Read, never written.
	HeadWeights []float64
	FP8         DType // F8E4M3 or F8E5M2: the cores' type, with a scale per head; any other: the page's own

	ChunkMin, ChunkMax int // a chunk closes at a delimiter from ChunkMin tokens on, at ChunkMax at the latest
	Sinks, Recent      int // first and last tokens of the sequence, kept as they are
	Spans              []Span

	// The paper's reading, as near as its abstract allows: cluster the rotated keys, take seeds in order of position and
	// merge by the plain mean.
	Rotated, ByPosition, PlainMean bool

	// MaxScratch, when positive, bounds the bytes of scratch: chunks are not made longer for a budget when that takes more.
	MaxScratch int64

	// Progress, when set, is called between the phases of a page, with done from 1 to total.
	Progress func(done, total int)
}

// Span is a range of token indices of the page, [From, To), that is never merged.
type Span struct{ From, To int }

// Semantic is the default preset: the best found (ALGORITHM, adaptive and per head).
func Semantic() Options {
	return Options{Ratio: defaults.Ratio, Budget: Adaptive, Exact: defaults.Exact, ChunkMin: defaults.ChunkMin, ChunkMax: defaults.ChunkMax,
		Sinks: defaults.Sinks, Recent: defaults.Recent}
}

// Weighted is Semantic with merges that cost more the more recent and the more unusual a token is, and exact tokens chosen
// over all layers and heads. It is the best found.
func Weighted() Options {
	o := Semantic()
	o.Exact, o.Across, o.Recency, o.Distinct, o.Recent = defaults.ExactWeighted, true, 84, true, defaults.RecentWeighted
	o.Attention, o.Fit = true, true
	return o
}

// Paper is the nearest reading of the paper.
func Paper() Options {
	return Options{Ratio: defaults.Ratio, Budget: Equal, ChunkMin: defaults.PaperChunkMin, ChunkMax: defaults.PaperChunkMax, Sinks: defaults.Sinks, Recent: defaults.Recent,
		Rotated: true, ByPosition: true, PlainMean: true}
}

// The methods beside them: honest baselines, and what a policy may choose.

// Window keeps the sinks and as many recent tokens as the budget allows (StreamingLLM).
func Window() Options { return baseline(Drop, Outliers, 0) }

// KeyNorm keeps the tokens with the shortest keys.
func KeyNorm() Options { return baseline(Drop, SmallKeys, 1) }

// SnapKV keeps the tokens that the last queries look at most.
func SnapKV() Options { return baseline(Drop, Attended, 1) }

// Uniform merges neighbours.
func Uniform() Options { return baseline(Stride, Outliers, 0) }

// Hybrid keeps what the last queries look at and merges the rest by meaning.
func Hybrid() Options {
	o := Semantic()
	o.Keep = Attended
	return o
}

func baseline(rest Rest, keep Keep, exact float64) Options {
	o := Semantic()
	o.Budget, o.Rest, o.Keep, o.Exact = Equal, rest, keep, exact
	return o
}

// Check refuses options that have no meaning.
func (o *Options) Check() error {
	switch {
	case !(o.Ratio > 0 && o.Ratio <= 1):
		return badInput(codes.BadOption, "ratio must be in (0, 1], got %v", o.Ratio)
	case o.Budget > Layered:
		return badInput(codes.BadOption, "unknown budget %d", o.Budget)
	case !(math.Abs(o.Threshold) <= 1):
		return badInput(codes.BadOption, "threshold must be in [-1, 1], got %v", o.Threshold)
	case !(o.Exact >= 0 && o.Exact <= 1):
		return badInput(codes.BadOption, "exact must be in [0, 1], got %v", o.Exact)
	case o.Keep > Attended || o.Rest > Drop:
		return badInput(codes.BadOption, "unknown keep %d or rest %d", o.Keep, o.Rest)
	case o.Rest != Cluster && o.Budget != Equal:
		return badInput(codes.BadOption, "only clusters have a threshold: a method that does not cluster needs the equal budget")
	case o.Granule < 0 || o.Granule > maxGranule:
		return badInput(codes.BadOption, "granule must be in [0, %d], got %d", maxGranule, o.Granule)
	case o.Granule > 1 && (o.Budget == Fixed || o.Budget == Equal && !o.Regular):
		return badInput(codes.BadOption, "a fixed budget, and an equal one that is not regular, is not met in multiples of a granule")
	case o.Across && o.Budget != Adaptive && o.Budget != Layered:
		return badInput(codes.BadOption, "exact tokens compete across heads only with the adaptive and the layered budget")
	case !(o.Recency >= 0 && o.Recency <= maxRecency):
		return badInput(codes.BadOption, "recency must be in [0, %d], got %v", int(maxRecency), o.Recency)
	case o.Attention && !o.Distinct:
		return badInput(codes.BadOption, "attention prices tokens together with distinct")
	case (o.Fit && o.Rest != Cluster) || (o.Fold && o.Rest == Drop):
		return badInput(codes.BadOption, "only merged cores can be fitted and folded")
	case o.Distinct && o.Keep != Outliers:
		return badInput(codes.BadOption, "distinct weighs by the outlier score, so the exact tokens must be outliers")
	case o.Weighs() && (o.Rest != Cluster || o.Budget == Fixed):
		return badInput(codes.BadOption, "recency, distinct and head weights weigh the merges that a budget asks for: they need clusters, and a budget that is not fixed")
	case o.HeadWeights != nil && o.Budget != Adaptive && o.Budget != Layered:
		return badInput(codes.BadOption, "head weights move slots between heads, which only the adaptive and the layered budget do")
	case o.ChunkMin < 1 || o.ChunkMax < o.ChunkMin || o.ChunkMax > MaxChunk:
		return badInput(codes.BadOption, "chunk lengths must satisfy 1 <= min <= max <= %d, got %d and %d", MaxChunk, o.ChunkMin, o.ChunkMax)
	case o.Sinks < 0 || o.Recent < 0:
		return badInput(codes.BadOption, "sinks and recent must not be negative, got %d and %d", o.Sinks, o.Recent)
	}
	for i, w := range o.HeadWeights {
		if !(w >= 1/maxHeadWeight && w <= maxHeadWeight) {
			return badInput(codes.BadOption, "weight %d of the heads must be in [1/%d, %d], got %v", i, int(maxHeadWeight), int(maxHeadWeight), w)
		}
	}
	for _, s := range o.Spans {
		if s.From < 0 || s.To < s.From {
			return badInput(codes.BadOption, "protected span [%d, %d) is not a range", s.From, s.To)
		}
	}
	return nil
}

// maxRecency bounds Options.Recency: a page has at most so many tokens, beyond it all would weigh the same.
const maxRecency = 1 << 20

// maxHeadWeight bounds Options.HeadWeights, and its reciprocal does.
const maxHeadWeight = float64(defaults.MaxHeadWeight)

// Weighs reports whether the similarities are weighed.
func (o *Options) Weighs() bool {
	return o.Recency > 0 || o.Distinct || o.Attention || o.HeadWeights != nil
}

// learns reports whether queries that teach are of use.
func (o *Options) learns() bool { return o.Rest != Drop && (o.Attention || o.Fit || o.Fold) }

// Pooled reports whether groups that share a budget meet it to the core: each has a number of cores, in whole granules, that is
// found beforehand.
func (o *Options) Pooled() bool { return o.Budget == Layered || o.Budget == Adaptive && o.Granule > 1 }

// maxGranule bounds Options.Granule.
const maxGranule = 1024

// Slots is the number of cores per head that the ratio allows for n tokens: whole granules, but one at least. Heads that share a
// budget have whole granules of their own, so that only their total is rounded.
func (o *Options) Slots(n int) int {
	slots, g := int(o.Ratio*float64(n)+1e-9), max(o.Granule, 1)
	if slots >= g && o.Pooled() {
		return slots
	}
	return max(slots/g, 1) * g
}
