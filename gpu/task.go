package gpu

import (
	"math"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// task is one page in a batch: its keys clustered, or attention over it measured, or both.
type task struct {
	plan *plan            // nil: attention only
	in   *compress.Input  // the page
	res  *compress.Result // attention only: the cores to attend to; nil: the originals
	full bool             // attention over the originals is wanted
	got  bool             // attention over the cores is wanted

	slot     *slot
	dev      job
	src, own attend // attention over the originals and over the cores
	want     attend // the same of the queries that teach
	rest     attend
	needs    need
	lessons  int // bytes of the same for the queries that teach
	parts    int // bytes of what the runs of keys give

	head    []int32 // threshold, cores, least of every group, after the first stage
	bytes   struct{ k, v, counts, positions, assign, similarity, fail, kscale, vscale, full, got []byte }
	width   int
	entered time.Time

	// Set before done is closed.
	done  chan struct{}
	err   error
	why   reason // not 0: recompute the page elsewhere
	again bool   // the chunks are too short for the budget

	queued time.Duration // until the batch started
	pages  int           // of the batch

	over, abandoned bool // the queue's lock guards them
}

// need is what a task takes in the arenas of a slot.
type need struct{ in, work, out int }

// newTask keeps no pointer to the caller's structures but res, which is read until the task is filled.
func newTask(p *plan, in *compress.Input, res *compress.Result, full, got bool) *task {
	return &task{plan: p, in: in, res: res, full: full, got: got, done: make(chan struct{}), entered: time.Now()}
}

// measure adds up what the task needs.
func (t *task) measure(multiprocessors int) {
	var in, work, out sizer
	x := t.in
	planes, d, size := x.Layers*x.Heads, x.Dim, x.DType.Size()
	if t.full || t.got {
		in.add(len(x.Q), 1)
		rows := x.Tokens
		if t.res != nil {
			rows = t.res.Cores
		}
		for _, on := range []bool{t.full, t.got} {
			if on {
				t.parts = t.partsOf(t.queries(), rows, multiprocessors)
				work.add(t.parts, 1)
				out.add(len(x.Q)/x.QDType.Size(), 4)
			}
		}
	}
	if t.plan == nil {
		t.measureKeys(&in)
		t.needs = need{int(in), int(work), int(out)}
		return
	}
	t.measureInput(&in)
	t.measureLearn(&in, &work, multiprocessors)
	t.measureWork(&work)

	// As many cores as tokens: how many there are is known later.
	cores := planes * x.Tokens
	work.add(cores*3, 8)
	if t.out8() != 0 {
		work.add(cores*d, size)
		work.add(cores*d, size)
		size = 1
	}
	out.add(cores*d, size)
	out.add(cores*d, size)
	out.add(cores, 4)
	out.add(cores, 4)
	out.add(cores, 4)
	for range 4 {
		out.add(planes, 4)
	}
	t.needs = need{int(in), int(work), int(out)}
}

// measureKeys is what attention reads where nothing is compressed: the page, or the cores that are there.
func (t *task) measureKeys(in *sizer) {
	x := t.in
	if t.res == nil {
		in.add(len(x.K), 1)
		in.add(len(x.V), 1)
	} else {
		in.add(len(t.res.K), 1)
		in.add(len(t.res.V), 1)
		in.add(len(t.res.Bias), 4)
	}
	in.add(x.Layers*x.Heads, 4)
	in.add(x.Layers*x.Heads, 4)
}

// measureInput is the page and its plan, in the order in which fill puts them.
func (t *task) measureInput(in *sizer) {
	x, p := t.in, t.plan
	planes := x.Layers * x.Heads
	in.add(len(x.K), 1)
	in.add(len(x.V), 1)
	in.add(planes, 4)
	in.add(planes, 4)
	in.add(x.Tokens, 4)
	in.add((p.span+1)*p.half, 4)
	in.add((p.span+1)*p.half, 4)
	in.add(p.half, 4)
	in.add(len(p.chunks)*p.half, 4)
	in.add(len(p.chunks)*p.half, 4)
	in.add(len(p.chunks), 16)
	in.add(len(p.tiles), 16)
	in.add(p.n, 4)
	in.add(p.n, 8)
	in.add(p.groups, 8)
	in.add(p.n, 1)
	in.add((1+p.groups)*p.launches*nodes, 4)
	in.add(p.groups+1, 4)
	in.add(p.groups, 4)
}

// measureWork is the scratch of the kernels, in the order in which fill takes it.
func (t *task) measureWork(work *sizer) {
	x, p := t.in, t.plan
	planes, d, gn := x.Layers*x.Heads, x.Dim, p.groups*p.n
	work.add(planes*p.n, 4)
	work.add(planes*len(p.tiles)*d, 4)
	work.add(planes*d, 4)
	work.add(gn, 4)
	work.add(gn, 1)
	work.add(p.groups*p.simLen, 2)
	work.add(gn, 8)
	work.add(gn, 2)
	work.add(p.groups*len(p.chunks), 4)
	work.add(gn, 4)
	work.add(gn, 4)
	work.add(p.groups*(p.n+1), 4)
	work.add(gn, 4)
	work.add(p.groups*padded(p.n), 8)
}

// out8 is the 8-bit type that the cores are rounded to, 0 when they keep the page's.
func (t *task) out8() compress.DType {
	if t.plan != nil && t.plan.opt.FP8.FP8() && !t.in.DType.FP8() {
		return t.plan.opt.FP8
	}
	return 0
}

// partsOf is the number of bytes that the runs of rows give for so many queries of each KV head.
func (t *task) partsOf(queries, rows, multiprocessors int) int {
	planes := t.in.Layers * t.in.Heads
	return 4 * planes * queries * splits(planes*blocksOf(queries), rows, multiprocessors) * (t.in.Dim + 2)
}

// queries is the number of queries that share a KV head.
func (t *task) queries() int { return t.in.QHeads / t.in.Heads * t.in.QWindow }

// padded is the power of two from n on.
func padded(n int) int {
	p := 1
	for p < n {
		p *= 2
	}
	return p
}

// heads is the number of 32-bit words of the task's head.
func (t *task) heads() int {
	if t.plan == nil {
		return 0
	}
	return 3 * t.plan.groups
}

// fill copies the page into the slot's pinned memory and says where everything will be on the device. Its memory was reserved,
// so pages of one batch are filled at the same time.
func (t *task) fill(in, work *arena, rope *table) {
	x, p, j := t.in, t.plan, &t.dev
	planes := x.Layers * x.Heads
	put := func(b []byte) cuda.Pointer {
		at, host := in.take(len(b))
		copy(host, b)
		return at
	}
	putScales := func(s []float32) cuda.Pointer {
		at, host := in.take(4 * planes)
		if s == nil {
			return 0
		}
		copy(view[float32](host), s)
		return at
	}
	var q cuda.Pointer
	if t.full || t.got {
		q = put(x.Q)
		for _, a := range []*attend{&t.src, &t.own} {
			if a.out != 0 {
				a.part, _ = work.take(t.parts)
			}
		}
	}
	if p == nil {
		t.fillKeys(q, put, putScales)
		return
	}
	half := p.half
	*j = job{
		threshold: j.threshold, cores: j.cores, least: j.least,
		k: put(x.K), v: put(x.V), kscale: putScales(x.KScale), vscale: putScales(x.VScale),
		positions: put(viewBytes(x.Positions)), cos: put(rope.cos[:4*(p.span+1)*half]), sin: put(rope.sin[:4*(p.span+1)*half]),
	}
	at, host := in.take(4 * half)
	freq := view[float32](host)
	for i := range freq {
		freq[i] = float32(p.freq[i])
	}
	j.freq = at
	j.baseCos, j.baseSin = t.bases(in)
	j.chunks, j.tiles, j.chunkOf = put(viewBytes(p.chunks)), put(viewBytes(p.tiles)), put(viewBytes(p.chunkOf))
	j.age, host = in.take(8 * p.n)
	var factors []byte
	j.dear, factors = in.take(8 * p.groups)
	if p.flags&flagWeighed != 0 {
		p.Ages(view[float64](host))
		p.factors(view[float64](factors))
	}
	j.keep = put(p.keep)
	zero := func(n int) cuda.Pointer {
		at, host := in.take(4 * n)
		clear(host)
		return at
	}
	j.totals, j.singles = zero((1+p.groups)*p.launches*nodes), zero(p.groups+1)
	j.quota, host = in.take(4 * p.groups)
	for i := range p.groups {
		view[int32](host)[i] = int32(p.slots)
	}

	gn := p.groups * p.n
	scratch := func(n, elem int) cuda.Pointer { at, _ := work.take(n * elem); return at }
	j.norm, j.sums, j.mean = scratch(planes*p.n, 4), scratch(planes*len(p.tiles)*x.Dim, 4), scratch(planes*x.Dim, 4)
	j.score, j.single, j.sim = scratch(gn, 4), scratch(gn, 1), scratch(p.groups*p.simLen, 2)
	j.centrality, j.cand, j.candLen = scratch(gn, 8), scratch(gn, 2), scratch(p.groups*len(p.chunks), 4)
	j.seed, j.label, j.start = scratch(gn, 4), scratch(gn, 4), scratch(p.groups*(p.n+1), 4)
	j.member, j.keys = scratch(gn, 4), scratch(p.groups*padded(p.n), 8)

	t.fillLearn(put, scratch)
	t.fillNumbers()
	j.partial = scratch(planes*x.Tokens*3, 8)
	if t.out8() != 0 {
		j.outK, j.outV = scratch(planes*x.Tokens*x.Dim, x.DType.Size()), scratch(planes*x.Tokens*x.Dim, x.DType.Size())
	}
	t.src = attend{q: q, k: j.k, v: j.v, kscale: j.kscale, vscale: j.vscale, dtype: int32(x.DType), qdtype: int32(x.QDType), len: int32(x.Tokens),
		out: t.src.out, part: t.src.part}
	t.own = attend{q: q, qdtype: int32(x.QDType), out: t.own.out, part: t.own.part}
}

// fillNumbers puts the numbers of the page and its plan into the job.
func (t *task) fillNumbers() {
	x, p, j := t.in, t.plan, &t.dev
	j.layers, j.heads, j.tokens, j.dim = int32(x.Layers), int32(x.Heads), int32(x.Tokens), int32(x.Dim)
	j.n, j.sinks, j.recent = int32(p.n), int32(p.sinks), int32(p.recent)
	j.groups, j.groupHeads, j.pool, j.granule = int32(p.groups), int32(p.groupHeads), int32(p.pool), int32(max(p.opt.Granule, 1))
	j.chunksLen, j.tilesLen, j.simLen, j.padded = int32(len(p.chunks)), int32(len(p.tiles)), int32(p.simLen), int32(padded(p.n))
	j.half, j.rows = int32(p.half), int32(p.span+1)
	j.dtype, j.out8, j.flags, j.budget = int32(x.DType), int32(t.out8()), int32(p.flags), int32(p.kind())
	j.slots, j.exact, j.lowest, j.fixed = int32(p.slots), int32(p.exact), int32(p.lowest), int32(p.fixed)
	j.launches, j.team = int32(p.launches), int32(team(x.Dim))
}

// fillKeys is fill for attention only.
func (t *task) fillKeys(q cuda.Pointer, put func([]byte) cuda.Pointer, putScales func([]float32) cuda.Pointer) {
	x, r := t.in, t.res
	if r == nil {
		t.src = attend{q: q, qdtype: int32(x.QDType), k: put(x.K), v: put(x.V), kscale: putScales(x.KScale), vscale: putScales(x.VScale),
			dtype: int32(x.DType), len: int32(x.Tokens), out: t.src.out, part: t.src.part}
		return
	}
	a := attend{q: q, qdtype: int32(x.QDType), k: put(r.K), v: put(r.V), bias: put(viewBytes(r.Bias)), dtype: int32(r.DType), len: int32(r.Cores),
		out: t.src.out, part: t.src.part}
	if r.DType.FP8() {
		a.kscale, a.vscale = putScales(r.KScale), putScales(r.VScale)
	}
	t.src = a
}

// place gives the attentions their places in what goes out: their size is known.
func (t *task) place(out *arena) {
	size := 0
	if t.full || t.got {
		size = 4 * len(t.in.Q) / t.in.QDType.Size()
	}
	if t.full {
		t.src.out, t.bytes.full = out.take(size)
	}
	if t.got {
		t.own.out, t.bytes.got = out.take(size)
	}
}

// bases computes the angles of the chunks' first positions.
func (t *task) bases(in *arena) (cos, sin cuda.Pointer) {
	p, n := t.plan, 4*len(t.plan.chunks)*t.plan.half
	cos, c := in.take(n)
	sin, s := in.take(n)
	if p.flags&flagNeedsMean == 0 {
		return cos, sin
	}
	cs, ss := view[float32](c), view[float32](s)
	for k, ch := range p.chunks {
		at := float64(p.in.Positions[p.sinks+int(ch.lo)])
		for i, f := range p.freq {
			y, x := math.Sincos(at * f)
			cs[k*p.half+i], ss[k*p.half+i] = float32(x), float32(y)
		}
	}
	return cos, sin
}
