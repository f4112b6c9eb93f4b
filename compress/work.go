package compress

import "github.com/semproxy/semproxy/compress/internal/simd"

// work is the memory of one page in flight. Its phases run in the order of steps; within a phase every task writes only
// its own plane, group or block of chunks, so no phase takes a lock.
//
// A plane is one (layer, head). A group is the set of planes that share one clustering: a plane, or all heads of a layer.
// Token indices inside work count from the first token after the sinks.
type work struct {
	in  *Input
	opt *Options
	out *Result

	n             int // tokens between the sinks and the recent window
	sinks, recent int
	slots         int // budget of a head for those n tokens
	groups, heads int // number of groups, planes in each
	whole         bool

	keep     []bool // [n], protected
	boundary []byte
	chunks   []chunk
	blocks   int // chunk blocks per group, the tasks of the similarity phase

	rope     Rope
	allFreq  []float64 // of rope
	freq     []float64 // what un-rotation uses: none when the options say so
	cos, sin []float32 // [n, len(freq)]
	angles   []complex128

	kernel *simd.Kernels
	half   *simd.Half // of the page's type; nil when it has no 16 bits
	stride int        // of rows of floats, dim padded
	unit   []float32  // [planes, n+3, stride], unit keys, un-rotated unless the options say otherwise
	norm   []float32  // [planes, n]
	mean   []float64  // [planes, dim], sum, then direction of the unit keys

	score      []float32 // [groups, n], distance from the mean direction
	single     []bool    // [groups, n], protected or exact: never merged
	index      []int32   // [groups, n], scratch of the selection and of the ranking
	sim        []int16   // [groups, simLen]
	simLen     int
	centrality []float32 // [groups, n]
	cand       []uint16  // [groups, n], per chunk the candidates by seed priority, as indices in the chunk
	candLen    []int32   // [groups, chunks]
	singles    []int32   // [groups]

	threshold []int32 // [groups]
	counts    []int   // [groups], clusters at the threshold that is being tried
	try       int
	seed      []int32 // [groups, n], each token's seed
	label     []int32 // [groups, n], each token's cluster, numbered in seed order
	cores     []int32 // [groups]
	start     []int32 // [groups, n+1], first member of each cluster
	member    []int32 // [groups, n]

	arena []arena
	phase phase
	steps []func(*pool)

	prepareTask, singlesTask, similarTask, budgetTask, countTask, assignTask, mergeTask func(worker, i int)
}

// arena is the scratch of one worker.
type arena struct {
	row, acc, val, unit []float32
	cos, sin            []float32
	sim                 []float32
	live                []uint16
	order               []ranked
	freq                []float32
	logits, queries     []float32
}

func newWork(workers int, kernel *simd.Kernels) *work {
	w := &work{arena: make([]arena, workers), kernel: kernel}
	w.prepareTask, w.singlesTask, w.similarTask = w.prepare, w.chooseSingles, w.similar
	w.budgetTask, w.countTask, w.assignTask, w.mergeTask = w.meetBudget, w.count, w.assign, w.merge
	w.steps = []func(*pool){w.runPrepare, w.runSingles, w.runSimilar, w.runBudget, w.runAssign, w.runMerge}
	return w
}

// begin takes the page in and sizes the memory that does not depend on the chunks.
func (w *work) begin(in *Input, opt *Options, out *Result) error {
	if w.allFreq == nil || w.rope != in.Rope { // pages of one model follow each other
		freq, err := in.Rope.Frequencies()
		if err != nil {
			return err
		}
		w.allFreq, w.rope = freq, in.Rope
	}
	w.in, w.opt, w.out, w.freq = in, opt, out, w.allFreq
	if opt.Rotated {
		w.freq = nil
	}
	w.sinks = min(opt.Sinks, in.Tokens)
	w.recent = min(opt.Recent, in.Tokens-w.sinks)
	w.n = in.Tokens - w.sinks - w.recent
	w.groups, w.heads = in.planes(), 1
	if opt.Shared {
		w.groups, w.heads = in.Layers, in.Heads
	}
	w.protect()
	w.slots = opt.slots(in.Tokens) - w.sinks - w.recent
	w.whole = w.n == 0 || (opt.Budget != Fixed && w.slots >= w.n)
	out.resize(in)

	planes, gn := in.planes(), w.groups*w.n
	w.stride, w.half = simd.Stride(in.Dim), halfOf(w.kernel, in.DType)
	w.unit = grow(w.unit, planes*(w.n+3)*w.stride)
	w.norm = grow(w.norm, planes*w.n)
	w.mean = grow(w.mean, planes*in.Dim)
	w.score, w.single, w.index = grow(w.score, gn), grow(w.single, gn), grow(w.index, gn)
	w.centrality, w.cand = grow(w.centrality, gn), grow(w.cand, gn)
	w.seed, w.label, w.member = grow(w.seed, gn), grow(w.label, gn), grow(w.member, gn)
	w.start = grow(w.start, w.groups*(w.n+1))
	w.singles, w.threshold, w.counts = grow(w.singles, w.groups), grow(w.threshold, w.groups), grow(w.counts, w.groups)
	w.cores = grow(w.cores, w.groups)
	return nil
}

// protect gathers the page's and the policy's protected tokens.
func (w *work) protect() {
	w.keep = grow(w.keep, w.n)
	clear(w.keep)
	if w.in.Protect != nil {
		for i, p := range w.in.Protect[w.sinks:][:w.n] {
			w.keep[i] = p != 0
		}
	}
	for _, s := range w.opt.Spans {
		for i := max(s.From-w.sinks, 0); i < min(s.To-w.sinks, w.n); i++ {
			w.keep[i] = true
		}
	}
}

// budget is the number of slots that a head has for its n middle tokens, and how many of them go to outliers.
// Protected tokens come out of the budget; one slot is always left for the rest.
func (w *work) budget() (slots, exact int) {
	kept := 0
	for _, k := range w.keep {
		if k {
			kept++
		}
	}
	free := max(w.slots-kept, 1)
	return free + kept, int(float64(free) * w.opt.Exact)
}

// units is plane p of unit; the three rows past n exist so that kernels may take rows by four.
func (w *work) units(p int) []float32 { return group(w.unit, p, (w.n+3)*w.stride) }

// group returns the part of s that belongs to group g.
func group[T any](s []T, g, n int) []T { return s[g*n : (g+1)*n : (g+1)*n] }
