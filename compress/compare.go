package compress

import "sync/atomic"

// similarities are what the keys of a page say: its chunks, how similar the tokens inside each are, and which may merge at all.
type similarities struct {
	layout
	looks      looks
	norm       []float32 // [planes, n], length of each key
	order      []uint16  // [groups, n], per chunk its tokens by seed priority, as indices in the chunk
	sim        []int16   // [groups, simSize], rows and columns of a chunk by seed priority; what lies below the diagonal is unspecified
	centrality []float64 // [groups, n], sum of a token's similarities
	single     []bool    // [groups, n], protected or exact: never merged
	live       []uint64  // [groups, liveSize], a bit for each token, by seed priority, that may merge: a candidate
	// seed, [groups, n], is each token's seed, where the clusters are found on the way (page.direct). Beside it only the chunks, norm
	// and centrality are there then.
	seed []int32
}

// comparing is the phase that cuts the chunks, computes the similarities inside them and chooses the tokens that never merge.
type comparing struct {
	pg                     *page
	near                   similarities
	keys                   unitKeys
	scores                 scores
	prices                 prices
	left                   []atomic.Int32   // [groups], blocks of chunks that are not done
	least                  []int            // [groups], cores when all merges that may
	scratch                []compareScratch // [workers]
	blockTask, singlesTask func(worker, i int)
	directTask             func(worker, i int)
}

// compareScratch is one worker's, for one chunk.
type compareScratch struct {
	sim  []float32 // [ld, ld], similarities by token
	near []int16   // [chunk, ld], the same, rounded
	keys []uint64  // [chunk], of seed priority
	live []uint16  // direct: tokens that are still free
	dots []float32 // direct: their similarities to a seed
}

func newComparing(workers int) *comparing {
	c := &comparing{scratch: make([]compareScratch, workers)}
	c.keys.scratch, c.scores.scratch, c.prices.scratch = make([]keyScratch, workers), make([]scoreScratch, workers), make([]priceScratch, workers)
	c.blockTask, c.singlesTask, c.directTask = c.block, c.singles, c.direct
	return c
}

// chunkBlock is the number of chunks in one task.
const chunkBlock = 8

// blocks is how many such tasks a group has.
func (l *layout) blocks() int { return (len(l.chunks) + chunkBlock - 1) / chunkBlock }

// blockOf are the chunks [from, to) of a block.
func (l *layout) blockOf(block int) (from, to int) {
	return block * chunkBlock, min((block+1)*chunkBlock, len(l.chunks))
}

// run returns nil for a page that is kept whole. taught is nil when the page teaches nothing.
func (c *comparing) run(pg *page, taught *lessons) *similarities {
	if pg.Whole() {
		return nil
	}
	c.pg = pg
	near, gn := &c.near, pg.groups*pg.n
	near.looks.begin(pg, taught)
	near.norm, near.centrality = grow(near.norm, pg.in.planes()*pg.n), grow(near.centrality, gn)
	minLen, maxLen := pg.opt.ChunkMin, pg.opt.ChunkMax
	if pg.direct() {
		near.seed = grow(near.seed, gn)
		c.cut(minLen, maxLen)
		pg.each(pg.groups*near.blocks(), c.directTask)
		return near
	}
	near.order, near.single = grow(near.order, gn), grow(near.single, gn)
	c.prices.begin(pg, &near.looks)
	for { // until the chunks are long enough for the budget
		c.cut(minLen, maxLen)
		near.sim, near.live = grow(near.sim, pg.groups*near.simSize()), grow(near.live, pg.groups*near.liveSize())
		c.compare()
		longerMin, longerMax, ok := pg.Longer(minLen, maxLen)
		if !ok || c.feasible() || !pg.affords(longerMax) {
			break // at the end of the memory the page keeps more cores than asked, as it does where no chunk is long enough
		}
		minLen, maxLen = longerMin, longerMax
	}
	return near
}

// forget drops what the caller owns.
func (c *comparing) forget() { c.near.looks.forget() }

// cut makes the chunks.
func (c *comparing) cut(minLen, maxLen int) {
	pg := c.pg
	c.near.cut(pg.marks(), pg.n, minLen, maxLen)
	pg.cover(c.near.span(pg.in.Positions[pg.sinks:]) + 1)
	c.keys.begin(pg, &c.near.layout, c.near.norm)
}

// compare does everything for the chunks that were cut.
func (c *comparing) compare() {
	pg, blocks := c.pg, c.near.blocks()
	c.scores.begin(pg, &c.keys)
	if len(c.left) < pg.groups {
		c.left = make([]atomic.Int32, pg.groups)
	}
	for g := range pg.groups {
		c.left[g].Store(int32(blocks))
	}
	pg.each(pg.groups*blocks, c.blockTask)
	if pg.opt.Across {
		c.scores.markAcross(c.near.single)
	}
	pg.each(pg.groups, c.singlesTask)
}

// feasible reports whether the chunks leave room for the budget.
func (c *comparing) feasible() bool {
	c.least = grow(c.least, c.pg.groups)
	for g := range c.least {
		c.least[g] = c.near.least(g)
	}
	return Feasible(&c.pg.Plan, c.least)
}

// block does one block of chunks of one group. Who finishes a group's last block goes on to what needs all of them, while
// the group is still in the caches.
func (c *comparing) block(worker, task int) {
	blocks := c.near.blocks()
	g := task / blocks
	from, to := c.near.blockOf(task % blocks)
	for k := from; k < to; k++ {
		c.chunk(worker, g, k)
	}
	if c.left[g].Add(-1) > 0 {
		return
	}
	c.scores.judge(worker, g)
	if c.pg.opt.Weighs() {
		c.prices.weigh(worker, g, c.scores.of(g), &c.near)
	}
}

// chunk does one chunk of one group.
func (c *comparing) chunk(worker, g, k int) {
	pg, near, a, kn := c.pg, &c.near, &c.scratch[worker], c.pg.kernel
	at := near.chunks[k]
	n, ld := at.len(), near.ld
	a.sim = grow(a.sim, ld*ld)
	clear(a.sim)
	from, to := pg.planesOf(g)
	for plane := from; plane < to; plane++ {
		units := c.keys.of(worker, plane, k)
		if pg.opt.Rest == Cluster {
			kn.Gram(a.sim, ld, units, n, pg.stride)
		}
	}
	if pg.opt.Rest != Cluster {
		return
	}
	// Thresholds are whole numbers of 1/1024, and floor(x) >= t exactly when x >= t: rounding down loses nothing.
	kn.Mirror(a.sim, ld, (n+3)&^3)
	a.near, a.keys = grow(a.near, n*ld), grow(a.keys, n)
	cent, order := group(near.centrality, g, pg.n)[at.lo:at.hi], group(near.order, g, pg.n)[at.lo:at.hi]
	for i := range n {
		cent[i] = kn.Quantize(a.near[i*ld:(i+1)*ld], a.sim[i*ld:], ThresholdSteps/float32(pg.heads), n, ld) / float64(pg.heads)
		a.keys[i] = uint64(rank(cent[i], int32(i), pg.opt.ByPosition))
	}
	kn.Rank(order, a.keys)
	kn.Reorder(near.simRows(group(near.sim, g, near.simSize()), k), a.near, ld, order)
}

// singles finds the tokens of a group that are never merged, the protected ones and those with the highest scores, and marks the other
// tokens of each chunk as candidates.
func (c *comparing) singles(_, g int) {
	pg, near := c.pg, &c.near
	single := group(near.single, g, pg.n)
	if !pg.opt.Across {
		c.scores.mark(g, single)
	}
	if pg.opt.Rest != Cluster {
		return
	}
	order, live := group(near.order, g, pg.n), group(near.live, g, near.liveSize())
	clear(live)
	for k, at := range near.chunks {
		candidates := near.liveBits(live, k)
		for r, i := range order[at.lo:at.hi] {
			if !single[at.lo+int(i)] {
				candidates[r/64] |= 1 << (r % 64)
			}
		}
	}
}
