package compress

import (
	"sync/atomic"

	"github.com/semproxy/semproxy/compress/internal/simd"
)

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
	chunkOf  []int32        // [n]
	blocks   int            // chunk blocks per group, the tasks of the similarity phase
	left     []atomic.Int32 // [groups], blocks that are not done
	exact    int            // tokens per group that the budget keeps exact

	rotation

	kernel *simd.Kernels
	half   *simd.Half // of the page's type; nil when it has no 16 bits
	stride int        // of rows of floats, dim padded
	norm   []float32  // [planes, n], length of each key
	sums   []float32  // [planes, chunks, dim], sum of the chunk's unit keys, turned back to the chunk's first position
	mean   []float32  // [planes, dim], mean direction of the un-rotated unit keys

	score      []float32 // [groups, n], distance from the mean direction
	single     []bool    // [groups, n], protected or exact: never merged
	index      []int32   // [groups, n], scratch of the selection and of the ranking
	centrality []float64 // [groups, n]
	order      []uint16  // [groups, n], per chunk its tokens by seed priority, as indices in the chunk
	similarities
	sim  []int16   // [groups, size]
	live []uint64  // [groups, chunks, words], a bit for each token, by seed priority, that may merge: a candidate
	age  []float64 // [n], share of the cost of merging a token that depends on its age alone

	threshold []int32 // [groups]
	counts    []int   // [groups], cores at the threshold that is being tried
	try       int
	limit     int64
	spent     atomic.Int64 // cores counted so far, over all groups
	quota     []int        // [groups], clusters that each may have
	seed      []int32      // [groups, n], each token's seed
	label     []int32      // [groups, n], each token's cluster, numbered in seed order
	cores     []int32      // [groups]
	size      []int32      // [groups, n], members of each cluster

	k8, v8 []byte // the cores in 8 bits

	arena []arena
	phase phase
	steps []func(*pool)

	similarTask, singlesTask, budgetTask, countTask, assignTask, mergeTask, fp8Task, directTask func(worker, i int)
}

// arena is the scratch of one worker.
type arena struct {
	inv             []float32 // [chunk]
	at              []int32   // [chunk], distances from its first token
	keys            []uint64  // [chunk], of seed priority
	row, acc        []float32
	rows            []float32
	cos, sin        []float32
	units           []float32 // [chunk, stride], unit keys of one chunk of one plane
	sim             []float32
	near            []int16  // [chunk, ld], similarities by token
	cost            []uint16 // [chunk], weights by seed priority
	place           []uint16 // [chunk], seed priorities
	free            []uint64 // candidates of one chunk that are still free
	live            []uint16
	dots            []float32
	order           []ranked
	spent           atomic.Int64
	logits, queries []float32
	wide            []float64

	tally tally
	sums  []float32 // of the clusters in open
	open  []cluster
	idle  []int32 // places in open, counted from one, that are free again
	slot  []int32 // [clusters], each cluster's place in open, counted from one; 0: none yet
}

func newWork(workers int, kernel *simd.Kernels) *work {
	w := &work{arena: make([]arena, workers), kernel: kernel}
	w.similarTask, w.singlesTask = w.similar, w.chooseSingles
	w.budgetTask, w.countTask, w.assignTask, w.mergeTask = w.meetBudget, w.count, w.assign, w.merge
	w.fp8Task, w.directTask = w.toFP8, w.direct
	w.steps = []func(*pool){w.runSimilar, w.runBudget, w.runAssign, w.runMerge, w.runFP8}
	return w
}

// begin takes the page in and sizes the memory that does not depend on the chunks.
func (w *work) begin(in *Input, opt *Options, out *Result) error {
	if opt.Keep == Attended && opt.Exact > 0 && in.Q == nil {
		return badInput("page.no_queries", "the page carries no q, which this method chooses tokens by")
	}
	if opt.HeadWeights != nil && len(opt.HeadWeights) != in.planes() {
		return badInput("policy.head_weights", "there are weights for %d heads, the page has %d layers of %d", len(opt.HeadWeights), in.Layers, in.Heads)
	}
	if err := w.use(in.Rope, opt.Rotated); err != nil {
		return err
	}
	w.in, w.opt, w.out = in, opt, out
	w.sinks = min(opt.Sinks, in.Tokens)
	w.recent = min(opt.Recent, in.Tokens-w.sinks)
	if opt.Rest == Drop && opt.Exact == 0 { // a window: it takes the whole budget
		w.recent = min(max(opt.slots(in.Tokens)-w.sinks, 0), in.Tokens-w.sinks)
		if w.sinks == 0 {
			w.recent = max(w.recent, 1) // a page is never emptied
		}
	}
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
	w.norm, w.mean, w.chunkOf = grow(w.norm, planes*w.n), grow(w.mean, planes*in.Dim), grow(w.chunkOf, w.n)
	w.score, w.single, w.index = grow(w.score, gn), grow(w.single, gn), grow(w.index, gn)
	w.centrality, w.order = grow(w.centrality, gn), grow(w.order, gn)
	w.seed, w.label, w.size = grow(w.seed, gn), grow(w.label, gn), grow(w.size, gn)
	if opt.weighs() {
		w.age = grow(w.age, w.n)
	}
	w.threshold, w.counts = grow(w.threshold, w.groups), grow(w.counts, w.groups)
	w.quota = grow(w.quota, w.groups)
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

// group returns the part of s that belongs to group g.
func group[T any](s []T, g, n int) []T { return s[g*n : (g+1)*n : (g+1)*n] }
