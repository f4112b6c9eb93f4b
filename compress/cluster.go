package compress

import "slices"

// clusters say which tokens become one core.
type clusters struct {
	label     []int32 // [groups, n], each token's cluster, numbered by falling priority of their seeds; or dropped
	size      []int32 // [groups, n], members of each cluster
	cores     []int32 // [groups], clusters
	threshold []int32 // [groups], what the members are similar to their seeds by at least
}

// dropped is the seed and the label of a token that no core stands for.
const dropped = -1

// clustering is the phase that turns thresholds into clusters.
type clustering struct {
	pg      *page
	near    *similarities
	limits  *thresholds
	found   clusters
	seed    []int32          // [groups, n], each token's seed
	scratch []clusterScratch // [workers]
	task    func(worker, g int)
}

// clusterScratch is one worker's.
type clusterScratch struct {
	order []ranked // [n], seeds, or members by their similarity
	free  []uint64 // candidates of one chunk that are still free
	place []uint16 // [chunk], seed priorities
}

func newClustering(workers int) *clustering {
	c := &clustering{scratch: make([]clusterScratch, workers)}
	c.task = c.group
	return c
}

// run needs no similarities for a page that is kept whole.
func (c *clustering) run(pg *page, near *similarities, limits *thresholds) *clusters {
	c.pg, c.near, c.limits = pg, near, limits
	f, gn := &c.found, pg.groups*pg.n
	f.label, f.size, f.cores, f.threshold = grow(f.label, gn), grow(f.size, gn), grow(f.cores, pg.groups), limits.threshold
	if !pg.Whole() && !pg.direct() {
		c.seed = grow(c.seed, gn)
	}
	pg.each(pg.groups, c.task)
	return f
}

// group does one group.
func (c *clustering) group(worker, g int) {
	n := c.pg.n
	if c.pg.Whole() {
		label, size := group(c.found.label, g, n), group(c.found.size, g, n)
		for i := range label {
			label[i], size[i] = int32(i), 1
		}
		c.found.cores[g] = int32(n)
		return
	}
	if c.pg.direct() {
		c.number(worker, g, group(c.near.seed, g, n))
		return
	}
	seed := group(c.seed, g, n)
	for i := range seed {
		seed[i] = int32(i)
	}
	switch c.pg.opt.Rest {
	case Cluster:
		c.seeds(worker, g, seed)
		c.fill(worker, g, seed)
	case Stride:
		c.strides(g, seed)
	case Drop:
		for i, alone := range group(c.near.single, g, n) {
			if !alone {
				seed[i] = dropped
			}
		}
	}
	c.number(worker, g, seed)
}

// number numbers the clusters of a group by the priority of their seeds.
func (c *clustering) number(worker, g int, seed []int32) {
	a, n := &c.scratch[worker], c.pg.n
	label, size, cent := group(c.found.label, g, n), group(c.found.size, g, n), group(c.near.centrality, g, n)
	byPosition := c.pg.opt.ByPosition || c.pg.opt.Rest != Cluster
	order := a.order[:0]
	for i, s := range seed {
		if int(s) == i {
			order = append(order, rank(cent[i], s, byPosition))
		}
	}
	slices.Sort(order)
	for l, s := range order {
		label[s.index()], size[l] = int32(l), 0
	}
	for i, s := range seed {
		if s == dropped {
			label[i] = dropped
			continue
		}
		label[i] = label[s]
		size[label[i]]++
	}
	c.found.cores[g] = int32(len(order))
	a.order = order
}

// seeds finds the clusters of every chunk.
func (c *clustering) seeds(worker, g int, seed []int32) {
	a, near, n := &c.scratch[worker], c.near, c.pg.n
	sim, order, live := group(near.sim, g, near.simSize()), group(near.order, g, n), group(near.live, g, near.liveSize())
	for k, at := range near.chunks {
		a.free = append(a.free[:0], near.liveBits(live, k)...)
		assignClusters(near.simRows(sim, k), near.ld, order[at.lo:at.hi], a.free, int(c.limits.threshold[g]), seed[at.lo:at.hi], int32(at.lo))
	}
}

// fill makes up for a budget that no threshold meets to the core: the members least similar to their seeds leave their
// clusters.
func (c *clustering) fill(worker, g int, seed []int32) {
	if !c.pg.opt.Pooled() && (!c.pg.opt.Regular || c.pg.opt.Budget != Equal) {
		return
	}
	slots := c.limits.quota[g]
	a, near := &c.scratch[worker], c.near
	sim := group(near.sim, g, near.simSize())
	members := a.order[:0]
	for k, at := range near.chunks {
		order := group(near.order, g, c.pg.n)[at.lo:at.hi]
		a.place = grow(a.place, at.len())
		for r, i := range order {
			a.place[i] = uint16(r)
		}
		for r, i := range order {
			i := int32(at.lo) + int32(i)
			s := seed[i]
			if s == i {
				slots--
				continue
			}
			similarity := sim[near.starts[k]+int(a.place[int(s)-at.lo])*near.ld+r]
			members = append(members, rank(-float64(similarity)/32, i, false)) // a rank takes 1024 at most
		}
	}
	a.order = members
	if slots <= 0 {
		return
	}
	slices.Sort(members)
	for _, r := range members[:min(slots, len(members))] {
		seed[r.index()] = r.index()
	}
}

// strides merges neighbours: the tokens that are not kept are cut into as many runs of equal length as there are slots.
func (c *clustering) strides(g int, seed []int32) {
	slots, _ := c.pg.Budget()
	single, rest := group(c.near.single, g, c.pg.n), 0
	for _, alone := range single {
		if alone {
			slots--
		} else {
			rest++
		}
	}
	slots = max(slots, 1)
	run, first, k := -1, int32(0), 0
	for i, alone := range single {
		if alone {
			continue
		}
		if r := k * slots / rest; r != run || int(c.pg.position(i)-c.pg.position(int(first))) >= maxTable {
			run, first = r, int32(i)
		}
		seed[i] = first
		k++
	}
}
