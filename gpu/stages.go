package gpu

import (
	"math"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// What a count launch counts for.
const (
	countAll = iota
	countEach
)

// blocks is the number of blocks of a kind that a page has.
func blocks(t *task, kind int) int {
	p, planes := t.plan, t.in.Layers*t.in.Heads
	up := func(n, by int) int { return (n + by - 1) / by }
	switch kind {
	case byTile:
		return p.groups * len(p.tiles)
	case byChunk:
		return p.groups * len(p.chunks)
	case byGroup:
		return p.groups
	case byPlane:
		if t.again {
			return 0
		}
		return planes
	case bySelection:
		if p.flags&flagAcross != 0 {
			return p.groups / p.pool
		}
		return p.groups
	case byJob:
		return 1
	case byCount:
		return up(p.groups*len(p.chunks)*nodes, countWarps)
	case byChunks:
		return up(p.groups*len(p.chunks), countWarps)
	case byCore:
		return up(planes*t.width, mergeThreads/team(t.in.Dim))
	case byQueries:
		if !t.looks() {
			return 0
		}
		return planes * blocksOf(t.lookers())
	case byTokens:
		if !t.looks() {
			return 0
		}
		return planes * up(t.in.Tokens, attendKeys)
	case byAsks:
		if !t.fits() || t.again {
			return 0
		}
		return planes * blocksOf(t.plan.teach.QWindow)
	case byWidth:
		if !t.fits() {
			return 0
		}
		return planes * up(t.width, attendKeys)
	default: // byTensor
		if t.again {
			return 0
		}
		return 2 * planes
	}
}

// sequence enqueues launches and remembers the first failure.
type sequence struct {
	d      *device
	s      *slot
	totals [kinds]int
	jobs   int
	err    error
}

func (q *sequence) do(err error) {
	if q.err == nil {
		q.err = err
	}
}

// run launches a kernel whose blocks are of a kind.
func (q *sequence) run(kernel, kind, shared, arg int) {
	if q.err == nil && q.totals[kind] > 0 {
		b := q.s.batch(kind, q.jobs, arg)
		q.do(q.d.launch(q.s, kernel, q.totals[kind], shared, bytesOf(&b)))
	}
}

// stage1 copies a batch in and enqueues everything up to the numbers of cores.
func (d *device) stage1(s *slot) error {
	q := &sequence{d: d, s: s}
	q.totals, q.jobs = s.tables(blocks)
	q.do(d.ctx.Record(s.events[0], s.stream))
	q.do(d.ctx.CopyIn(s.in.base, s.in.host[:s.in.used], s.stream))
	q.do(d.ctx.Record(s.events[1], s.stream))
	if q.jobs > 0 {
		d.cluster(q)
	}
	for _, t := range s.tasks {
		if t.full {
			d.attention(q, t, &t.src, t.queries())
		}
		if t.fits() {
			d.attention(q, t, &t.want, t.plan.teach.QWindow)
		}
	}
	q.do(d.ctx.Record(s.events[2], s.stream))
	if q.jobs > 0 && q.err == nil {
		heads := s.in.host[s.headers:][:4*s.heads]
		q.do(d.ctx.CopyOut(heads, s.in.base+cuda.Pointer(s.headers), s.stream))
	}
	return q.err
}

// cluster enqueues the kernels from the keys to the clusters.
func (d *device) cluster(q *sequence) {
	var (
		flags, shared, launches int
		attended                int // shared memory
		budgets                 [4]bool
		fills                   bool
	)
	for _, t := range q.s.tasks {
		p := t.plan
		if p == nil {
			continue
		}
		flags |= p.flags
		attended = max(attended, attendShared(t.in.Dim))
		shared = max(shared, similarShared(t.in.Dim, p.longest))
		launches = max(launches, p.launches)
		budgets[p.kind()] = true
		fills = fills || p.opt.Pooled() || (p.opt.Regular && p.opt.Budget == compress.Equal)
	}
	q.run(kernelSimilar, byTile, shared, 0)
	if flags&flagNeedsMean != 0 {
		q.run(kernelMean, byPlane, maxDim*8, 0)
	}
	if flags&(flagAttended|flagLooked) != 0 {
		q.run(kernelSoftmax, byQueries, attended, 0)
		q.run(kernelLooks, byTokens, attended, 0)
	}
	if flags&flagLooked != 0 {
		q.run(kernelMeanLook, byPlane, 8*256, 0)
	}
	if flags&flagNeedsScore != 0 {
		q.run(kernelScore, byTile, 0, 0)
	}
	q.run(kernelSelect, bySelection, selectedBytes, 0)
	q.run(kernelOrder, byChunk, compress.MaxChunk*(8+2)+16, 0)
	if budgets[compress.Adaptive] {
		for i := range launches {
			q.run(kernelCount, byCount, 0, countAll|i<<2)
		}
	}
	if budgets[compress.Adaptive] || budgets[compress.Fixed] {
		q.run(kernelSettle, byJob, 0, countAll)
	}
	if budgets[compress.Equal] || budgets[compress.Layered] {
		for i := range launches {
			q.run(kernelCount, byCount, 0, countEach|i<<2)
		}
		q.run(kernelSettle, byJob, 0, countEach)
	}
	if budgets[compress.Layered] {
		q.run(kernelQuota, byJob, 0, 0)
	}
	q.run(kernelAssign, byChunks, 0, 0)
	if fills {
		q.run(kernelFill, byGroup, selectedBytes, 0)
	}
	q.run(kernelRank, byGroup, 4*(1+256), 0)
}

// attention enqueues one attention of a page, of so many queries to each KV head.
func (d *device) attention(q *sequence, t *task, a *attend, queries int) {
	x := t.in
	a.batch, a.heads, a.per, a.dim = int32(x.Layers), int32(x.Heads), int32(queries), int32(x.Dim)
	a.rowB, a.rowT, a.rowH = int64(x.Heads)*int64(a.len), 1, int64(a.len)
	d.attend(q, a)
}

// attend enqueues the kernels of a; everything but the splits and the scale is set.
func (d *device) attend(q *sequence, a *attend) {
	if q.err != nil {
		return
	}
	heads := int(a.batch * a.heads)
	a.queryBlocks = int32(blocksOf(int(a.per)))
	n := splits(heads*int(a.queryBlocks), int(a.len), d.info.Multiprocessors)
	a.splitLen = int32((int(a.len)+n-1)/n+attendKeys-1) / attendKeys * attendKeys
	a.splits = max((a.len+a.splitLen-1)/max(a.splitLen, 1), 1)
	a.scale = float32(math.Log2E / math.Sqrt(float64(a.dim)))
	q.do(d.launch(q.s, kernelAttend, heads*int(a.queryBlocks)*int(a.splits), attendShared(int(a.dim)), bytesOf(a)))
	if q.err == nil {
		q.do(d.launch(q.s, kernelCombine, heads*int(a.per), 0, bytesOf(a)))
	}
}

// fit enqueues the kernels that move cores for the queries that teach: the bias of merged ones into their keys, those keys, and values.
func (d *device) fit(q *sequence) {
	keys, shared, softmax, aims, folds := 0, 0, 0, false, false
	for _, t := range q.s.tasks {
		aims, folds = aims || t.aims(), folds || t.folds()
		if t.fits() && !t.again {
			keys, shared, softmax = max(keys, keysShared(t.in.Dim)), max(shared, fitShared(t.in.Dim)), max(softmax, attendShared(t.in.Dim))
		}
	}
	if aims {
		q.run(kernelAim, byPlane, aimShared, 0)
	}
	if folds {
		q.run(kernelFold, byPlane, foldShared, 0)
	}
	if keys > 0 {
		q.run(kernelKeys, byWidth, keys, 0)
	}
	for _, t := range q.s.tasks {
		if t.fits() && !t.again {
			d.attention(q, t, &t.rest, t.plan.teach.QWindow)
		}
	}
	if shared > 0 {
		q.run(kernelSoftmax, byAsks, softmax, 1)
		q.run(kernelSolve, byPlane, shared, 0)
		q.run(kernelFit, byWidth, shared, 0)
	}
}

// stage2 enqueues the cores, whose number is known now, and copies them out.
func (d *device) stage2(s *slot) error {
	q := &sequence{d: d, s: s}
	for _, t := range s.tasks {
		t.layout(&s.out)
	}
	q.totals, q.jobs = s.tables(blocks)
	q.do(d.ctx.Record(s.events[3], s.stream))
	if q.jobs > 0 {
		q.do(d.ctx.CopyIn(s.in.base, s.in.host[:s.headers], s.stream))
		narrows := false
		for _, t := range s.tasks {
			narrows = narrows || t.out8() != 0
		}
		q.run(kernelMerge, byCore, 0, 0)
		q.run(kernelReduce, byPlane, 3*8*256, 0)
		d.fit(q)
		if narrows {
			q.run(kernelNarrow, byTensor, 4*256, 0)
		}
	}
	for _, t := range s.tasks {
		if t.got && t.plan != nil && !t.again {
			d.attention(q, t, &t.own, t.queries())
		}
	}
	q.do(d.ctx.Record(s.events[4], s.stream))
	if q.err == nil && s.out.used > 0 {
		q.do(d.ctx.CopyOut(s.out.host[:s.out.used], s.out.base, s.stream))
	}
	q.do(d.ctx.Record(s.events[5], s.stream))
	return q.err
}
