package compress

// thresholdSteps is the resolution of a similarity threshold: t stands for t/1024.
const thresholdSteps = 1024

// chunkBlock is the number of chunks in one task of the similarity phase.
const chunkBlock = 8

// runSimilar cuts the chunks and computes the similarities inside them.
func (w *work) runSimilar(p *pool) {
	if w.whole {
		return
	}
	w.boundary = nil
	if w.in.Boundary != nil {
		w.boundary = w.in.Boundary[w.sinks : w.sinks+w.n]
	}
	minLen, maxLen := w.opt.ChunkMin, w.opt.ChunkMax
	if w.isDirect() {
		w.cut(minLen, maxLen)
		p.run(&w.phase, w.groups*w.blocks, w.directTask)
		return
	}
	if w.opt.weighs() {
		w.ages()
	}
	for { // until the chunks are long enough for the budget
		w.cut(minLen, maxLen)
		w.prepareScores()
		p.run(&w.phase, w.groups*w.blocks, w.similarTask)
		w.chooseExact(p)
		if w.opt.Rest != Cluster || w.opt.Budget == Fixed || maxLen >= maxChunk || w.feasible() {
			return
		}
		minLen, maxLen = min(2*minLen, maxChunk), min(2*maxLen, maxChunk)
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
	slots, _ := w.budget()
	total := 0
	for g := range w.groups {
		least := w.least(g)
		if w.opt.Budget == Equal && least > slots {
			return false
		}
		total += least
	}
	return total <= w.groups*slots
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
		cent[i] = w.kernel.Quantize(a.near[i*ld:(i+1)*ld], a.sim[i*ld:], thresholdSteps/float32(w.heads), n, ld) / float64(w.heads)
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
			w.threshold[g] = int32(floor(w.opt.Threshold * thresholdSteps))
		}
	case w.opt.Budget == Equal:
		slots, _ := w.budget()
		for g := range w.quota {
			w.quota[g] = slots
		}
		p.run(&w.phase, w.groups, w.budgetTask)
	default:
		t := w.adaptive(p)
		for g := range w.threshold {
			w.threshold[g] = int32(t)
		}
		if w.opt.Budget == Layered {
			w.layered(p, t)
			p.run(&w.phase, w.groups, w.budgetTask)
		}
	}
}

// layered gives the heads of a layer equal quotas: what they have together at threshold t, but no less than any of them
// needs for its exact tokens and one cluster per chunk.
func (w *work) layered(p *pool, t int) {
	w.countAll(p, t, w.groups*w.n)
	heads := w.groups / w.in.Layers
	for l := 0; l < w.groups; l += heads {
		quota, least := 0, 0
		for g := l; g < l+heads; g++ {
			quota += w.counts[g]
			least = max(least, w.least(g))
		}
		for g := l; g < l+heads; g++ {
			w.quota[g] = max(quota/heads, least)
		}
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
	lo, hi := w.lowest(), thresholdSteps+1
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
	slots, _ := w.budget()
	lo, hi := w.lowest(), thresholdSteps+1
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
