package compress

import (
	"sync/atomic"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/internal/simd"
)

// work is the memory of one page in flight. Its phases run in the order of steps; within a phase every task writes only
// its own plane, group or block of chunks, so no phase takes a lock.
//
// Planes, groups and the indices of tokens are those of the plan.
type work struct {
	Plan
	out *Result

	need, held int64 // bytes that this page needs, and that any has needed

	whole bool

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

	teach    future
	want     []float32 // [planes, asks, dim], what the turned queries get from the originals
	fold     []float32 // [planes, dim], the direction along which a bias goes into a key
	look     []float32 // [planes, tokens], attention of the turned queries to each token times its value's length
	meanLook []float64 // [planes]

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

	similarTask, singlesTask, budgetTask, countTask, assignTask, mergeTask, fp8Task, directTask, learnTask, fitTask, poolTask func(worker, i int)
}

// arena is the scratch of one worker.
type arena struct {
	inv      []float32 // [chunk]
	at       []int32   // [chunk], distances from its first token
	keys     []uint64  // [chunk], of seed priority
	row, acc []float32
	rows     []float32
	cos, sin []float32
	units    []float32 // [chunk, stride], unit keys of one chunk of one plane
	sim      []float32
	near     []int16   // [chunk, ld], similarities by token
	cost     []uint16  // [chunk], weights by seed priority
	price    []float64 // [n]
	place    []uint16  // [chunk], seed priorities
	free     []uint64  // candidates of one chunk that are still free
	live     []uint16
	dots     []float32
	order    []ranked
	spent    atomic.Int64
	queries  []float32 // [queries, stride]
	got      answers
	wide     []float64

	system           // of the fit's equations
	rest   []float32 // [unknowns, wide], what the cores lack, and the solution
	merged []float32 // [merged cores, lanes], attention to those that the fit moves
	moves  []int32   // those cores

	mergeSums mergeSums
	sums      []float32 // of the clusters in open
	open      []cluster
	idle      []int32 // places in open, counted from one, that are free again
	slot      []int32 // [clusters], each cluster's place in open, counted from one; 0: none yet
}

func newWork(workers int, kernel *simd.Kernels) *work {
	w := &work{arena: make([]arena, workers), kernel: kernel}
	w.similarTask, w.singlesTask = w.similar, w.chooseSingles
	w.budgetTask, w.countTask, w.assignTask, w.mergeTask = w.meetBudget, w.count, w.assign, w.merge
	w.fp8Task, w.directTask, w.learnTask, w.fitTask = w.toFP8, w.direct, w.learnPlane, w.fitPlane
	w.poolTask = w.meetPool
	w.steps = []func(*pool){w.runLearn, w.runSimilar, w.runBudget, w.runAssign, w.runMerge, w.runFit, w.runFP8}
	return w
}

// begin takes the page in and sizes the memory that does not depend on the chunks.
func (w *work) begin(in *Input, opt *Options, out *Result) error {
	if opt.Keep == Attended && opt.Exact > 0 && in.Q == nil {
		return badInput(codes.PageNoQueries, "the page carries no q, which this method chooses tokens by")
	}
	if opt.Fold && in.Q == nil {
		return badInput(codes.PageNoQueries, "the page carries no q, along which a bias is folded into the keys")
	}
	if opt.HeadWeights != nil && len(opt.HeadWeights) != in.planes() {
		return badInput(codes.HeadWeights, "there are weights for %d heads, the page has %d layers of %d", len(opt.HeadWeights), in.Layers, in.Heads)
	}
	if err := w.use(in.Rope, opt.Rotated); err != nil {
		return err
	}
	w.out = out
	w.need = in.Size().scratch(opt, opt.ChunkMax)
	w.prepare(in, opt)
	w.whole = w.Whole()
	out.resize(in)

	planes, gn := in.planes(), w.groups*w.n
	w.stride, w.half = simd.Stride(in.Dim), halfOf(w.kernel, in.DType)
	w.norm, w.mean, w.chunkOf = grow(w.norm, planes*w.n), grow(w.mean, planes*in.Dim), grow(w.chunkOf, w.n)
	w.score, w.single, w.index = grow(w.score, gn), grow(w.single, gn), grow(w.index, gn)
	w.centrality, w.order = grow(w.centrality, gn), grow(w.order, gn)
	w.seed, w.label, w.size = grow(w.seed, gn), grow(w.label, gn), grow(w.size, gn)
	if opt.Weighs() {
		w.age = grow(w.age, w.n)
	}
	w.threshold, w.counts = grow(w.threshold, w.groups), grow(w.counts, w.groups)
	w.quota = grow(w.quota, w.groups)
	w.cores = grow(w.cores, w.groups)
	return nil
}

// group returns the part of s that belongs to group g.
func group[T any](s []T, g, n int) []T { return s[g*n : (g+1)*n : (g+1)*n] }
