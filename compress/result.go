package compress

import "time"

// Result is a compressed page. The caller owns it and may pass it to the next call, which reuses its memory.
//
// Cores is the width of every tensor: the largest number of cores of any head. A head with fewer is padded with count 0,
// bias -Inf and zero keys and values. The cores of a head stand in this order: sinks, clusters by falling centrality of
// their seed, recent tokens.
type Result struct {
	Layers, Heads, Cores, Dim int
	Tokens                    int
	K, V                      []byte    // [Layers, Heads, Cores, Dim] in DType
	Counts                    []int32   // [Layers, Heads, Cores], tokens that each core stands for
	Bias                      []float32 // [Layers, Heads, Cores], ln(count)
	Positions                 []float32 // [Layers, Heads, Cores], mean position; K is rotated to it
	Assign                    []int32   // [Layers, Heads, Tokens], the core of each token; -1: dropped
	Dropped                   []int32   // [Layers, Heads], tokens that no core stands for; all 0 unless the method evicts
	DType                     DType     // of K and V
	KScale, VScale            []float32 // [Layers, Heads], FP8 only
	Slots                     []int32   // [Layers, Heads], cores in use
	Thresholds                []int32   // [Layers, Heads], the similarity threshold times 1024; [Unmerged] where nothing merged
	KeySimilarity             []float32 // [Layers, Heads], mean cosine of a token's un-rotated key and its core's
	// ValueError, [Layers, Heads], is the relative error of the values, |values - their cores'| / |values|, taken over all
	// tokens of a head; a dropped token counts as lost whole. It is measured when the page carries no queries, and says what
	// can be said without them; empty otherwise.
	ValueError []float32
	Elapsed    time.Duration
}

// Unmerged stands in Result.Thresholds for a page that was kept whole.
const Unmerged = ThresholdSteps + 1

// Kept is the number of cores over all heads divided by the number of tokens: the ratio reached.
func (r *Result) Kept() float64 {
	total := 0
	for _, s := range r.Slots {
		total += int(s)
	}
	return float64(total) / float64(len(r.Slots)*r.Tokens)
}

// MeanValueError averages over layers and heads; false when it was not measured.
func (r *Result) MeanValueError() (float64, bool) {
	sum := 0.0
	for _, e := range r.ValueError {
		sum += float64(e)
	}
	return sum / float64(max(len(r.ValueError), 1)), len(r.ValueError) > 0
}

// MeanKeySimilarity averages over layers and heads.
func (r *Result) MeanKeySimilarity() float64 {
	sum := 0.0
	for _, s := range r.KeySimilarity {
		sum += float64(s)
	}
	return sum / float64(len(r.KeySimilarity))
}

// Len is the number of bytes of K, V, counts, bias and positions.
func (r *Result) Len() int {
	return len(r.K) + len(r.V) + 4*(len(r.Counts)+len(r.Bias)+len(r.Positions))
}

// resize sets the shape and makes every tensor as long as it needs, reusing memory. The contents are unspecified.
func (r *Result) resize(in *Input) {
	r.Layers, r.Heads, r.Tokens, r.Dim = in.Layers, in.Heads, in.Tokens, in.Dim
	p := in.planes()
	r.Slots, r.Dropped = grow(r.Slots, p), grow(r.Dropped, p)
	r.ValueError = r.ValueError[:0]
	if in.Q == nil {
		r.ValueError = grow(r.ValueError, p)
	}
	r.DType = in.DType
	r.KScale, r.VScale = append(r.KScale[:0], in.KScale...), append(r.VScale[:0], in.VScale...)
	r.Thresholds = grow(r.Thresholds, p)
	r.KeySimilarity = grow(r.KeySimilarity, p)
	r.Assign = grow(r.Assign, p*in.Tokens)
}

// setCores sets the number of cores per head, once it is known.
func (r *Result) setCores(cores int, rowBytes int) {
	r.Cores = cores
	n := r.Layers * r.Heads * cores
	r.K = grow(r.K, n*rowBytes)
	r.V = grow(r.V, n*rowBytes)
	r.Counts = grow(r.Counts, n)
	r.Bias = grow(r.Bias, n)
	r.Positions = grow(r.Positions, n)
}

// grow returns a slice of length n that reuses s's memory when it is large enough.
func grow[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}
