package compress

// chunkBlock is the number of chunks in one task of the similarity phase.
const chunkBlock = 8

// runSimilar cuts the chunks and computes the similarities inside them.
func (w *work) runSimilar(p *pool) {
	if w.whole {
		return
	}
	w.boundary = w.marks()
	minLen, maxLen := w.opt.ChunkMin, w.opt.ChunkMax
	if w.isDirect() {
		w.cut(minLen, maxLen)
		p.run(&w.phase, w.groups*w.blocks, w.directTask)
		return
	}
	if w.opt.Weighs() {
		w.Ages(w.age)
		w.meanLooks()
	}
	for { // until the chunks are long enough for the budget
		w.cut(minLen, maxLen)
		w.prepareScores()
		p.run(&w.phase, w.groups*w.blocks, w.similarTask)
		w.chooseExact(p)
		longerMin, longerMax, ok := w.Longer(minLen, maxLen)
		if !ok || w.feasible() {
			return
		}
		minLen, maxLen = longerMin, longerMax
		need := w.need + w.in.Size().scratch(w.opt, maxLen) // what was there may not have been collected yet
		if w.opt.MaxScratch > 0 && need > w.opt.MaxScratch {
			return // the page keeps more cores than asked, as it does where no chunk is long enough
		}
		w.need = need
	}
}

// cut makes the chunks and the memory that depends on them.
func (w *work) cut(minLen, maxLen int) {
	w.chunks = chunks(w.chunks, w.boundary, w.n, minLen, maxLen)
	positions, span := w.in.Positions[w.sinks:], 0
	for k, c := range w.chunks {
		for i := c.lo; i < c.hi; i++ {
			w.chunkOf[i] = int32(k)
		}
		span = max(span, int(positions[c.hi-1]-positions[c.lo]))
	}
	w.cover(span + 1)
	w.fit(w.chunks)
	w.sim, w.live = grow(w.sim, w.groups*w.simSize()), grow(w.live, w.groups*len(w.chunks)*w.words)
	w.sums = grow(w.sums, w.in.planes()*len(w.chunks)*w.in.Dim)
	w.blocks = (len(w.chunks) + chunkBlock - 1) / chunkBlock
}

// feasible reports whether the chunks leave room for the budget: below every similarity, each chunk with a candidate is
// one cluster, and every single is one more.
func (w *work) feasible() bool {
	for g := range w.counts {
		w.counts[g] = w.least(g)
	}
	return Feasible(&w.Plan, w.counts)
}

// least is the number of cores of group g when everything that may merge does.
func (w *work) least(g int) int {
	single, least := group(w.single, g, w.n), 0
	for _, c := range w.chunks {
		merges := 0
		for _, s := range single[c.lo:c.hi] {
			if s {
				least++
			} else {
				merges = 1
			}
		}
		least += merges
	}
	return least
}

// similar does one block of chunks of one group. Who finishes a group's last block goes on to what needs all of them, while
// the group is still in the caches.
func (w *work) similar(worker, task int) {
	g, block := task/w.blocks, task%w.blocks
	for k := block * chunkBlock; k < min((block+1)*chunkBlock, len(w.chunks)); k++ {
		w.similarChunk(worker, g, k)
	}
	if w.left[g].Add(-1) == 0 {
		w.judge(worker, g)
	}
}

// similarChunk does one chunk of one group.
func (w *work) similarChunk(worker, g, k int) {
	a, c := &w.arena[worker], w.chunks[k]
	n, ld := c.len(), w.ld
	a.sim = grow(a.sim, ld*ld)
	clear(a.sim)
	for plane := g * w.heads; plane < (g+1)*w.heads; plane++ {
		w.unitKeys(a, plane, k)
		if w.opt.Rest == Cluster {
			w.kernel.Gram(a.sim, ld, a.units, n, w.stride)
		}
	}
	if w.opt.Rest != Cluster {
		return
	}
	// Thresholds are whole numbers of 1/1024, and floor(x) >= t exactly when x >= t: rounding down loses nothing.
	w.kernel.Mirror(a.sim, ld, (n+3)&^3)
	a.near, a.keys = grow(a.near, n*ld), grow(a.keys, n)
	cent, order := group(w.centrality, g, w.n)[c.lo:c.hi], group(w.order, g, w.n)[c.lo:c.hi]
	for i := range n {
		cent[i] = w.kernel.Quantize(a.near[i*ld:(i+1)*ld], a.sim[i*ld:], ThresholdSteps/float32(w.heads), n, ld) / float64(w.heads)
		a.keys[i] = uint64(rank(cent[i], int32(i), w.opt.ByPosition))
	}
	w.kernel.Rank(order, a.keys)
	w.kernel.Reorder(w.simRows(group(w.sim, g, w.simSize()), k), a.near, ld, order)
}

// runBudget finds the thresholds.
func (w *work) runBudget(p *pool) {
	switch {
	case w.whole, w.opt.Rest != Cluster:
		for g := range w.threshold {
			w.threshold[g] = Unmerged
		}
	case w.opt.Budget == Fixed:
		for g := range w.threshold {
			w.threshold[g] = int32(floor(w.opt.Threshold * ThresholdSteps))
		}
	case w.opt.Budget == Equal:
		slots, _ := w.Budget()
		for g := range w.quota {
			w.quota[g] = slots
		}
		p.run(&w.phase, w.groups, w.budgetTask)
	case w.opt.Pooled():
		p.run(&w.phase, w.groups/w.Pool(), w.poolTask)
	default:
		t := w.adaptive(p)
		for g := range w.threshold {
			w.threshold[g] = int32(t)
		}
	}
}

// meetPool bisects one threshold for the groups that share a budget, those of a layer or of the page, for their largest clusterings
// that, each rounded up to whole granules, stay within the total, and gives the granules that are left to the groups that merge
// most.
func (w *work) meetPool(worker, i int) {
	pool, spent := w.Pool(), &w.arena[worker].spent
	first := i * pool
	slots, _ := w.Budget()
	total := pool * slots
	rounded := func(t int) (sum int) {
		for g := first; g < first+pool; g++ {
			spent.Store(0)
			w.quota[g] = w.Round(w.countGroup(g, t, spent, int64(total)))
			sum += w.quota[g]
		}
		return sum
	}
	lo, hi := w.Lowest(), ThresholdSteps+1
	for hi-lo > 1 {
		if t := floor(float64(lo+hi) / 2); rounded(t) <= total {
			lo = t
		} else {
			hi = t
		}
	}
	sum := rounded(lo)
	for granule := max(w.opt.Granule, 1); ; sum += granule {
		most := -1
		for g := first; g < first+pool; g++ {
			if w.Round(w.quota[g]+1) > w.quota[g] && (most < 0 || w.quota[g] < w.quota[most]) {
				most = g
			}
		}
		if most < 0 || sum+granule > total {
			break
		}
		w.quota[most] += granule
	}
	for g := first; g < first+pool; g++ {
		w.threshold[g] = int32(lo)
	}
}

func floor(x float64) int {
	n := int(x)
	if float64(n) > x {
		n--
	}
	return n
}

// meetBudget bisects one group's threshold for the largest clustering within the budget. Count is only nearly monotone
// in the threshold, so the path of the bisection is part of the definition.
func (w *work) meetBudget(worker, g int) {
	slots, spent := w.quota[g], &w.arena[worker].spent
	lo, hi := w.Lowest(), ThresholdSteps+1
	best, bestCount := lo, w.least(g)
	for hi-lo > 1 {
		t := floor(float64(lo+hi) / 2)
		spent.Store(0)
		if n := w.countGroup(g, t, spent, int64(slots)); n <= slots {
			if n >= bestCount || bestCount > slots {
				best, bestCount = t, n
			}
			lo = t
		} else {
			hi = t
		}
	}
	w.threshold[g] = int32(best)
}

// adaptive bisects one threshold for all groups, so that the total over layers and heads meets the budget.
func (w *work) adaptive(p *pool) int {
	slots, _ := w.Budget()
	lo, hi := w.Lowest(), ThresholdSteps+1
	for hi-lo > 1 {
		t := floor(float64(lo+hi) / 2)
		if w.countAll(p, t, w.groups*slots) <= w.groups*slots {
			lo = t
		} else {
			hi = t
		}
	}
	return lo
}
