package compress

import "slices"

// runAssign turns thresholds into clusters.
func (w *work) runAssign(p *pool) { p.run(&w.phase, w.groups, w.assignTask) }

// assign numbers the clusters of one group in the order of their seeds.
func (w *work) assign(worker, g int) {
	seed, label := group(w.seed, g, w.n), group(w.label, g, w.n)
	direct := !w.whole && w.isDirect()
	for i := range seed {
		if !direct { // else it is there already
			seed[i] = int32(i)
		}
	}
	if !w.whole && !direct {
		switch w.opt.Rest {
		case Cluster:
			w.seeds(worker, g, seed)
			w.fill(worker, g, seed)
		case Stride:
			w.strides(g, seed)
		case Drop:
			for i, s := range group(w.single, g, w.n) {
				if !s {
					seed[i] = dropped
				}
			}
		}
	}
	// Rank the seeds.
	a := &w.arena[worker]
	a.order = a.order[:0]
	cent := group(w.centrality, g, w.n)
	byPosition := w.whole || w.opt.ByPosition || w.opt.Rest != Cluster
	for i, s := range seed {
		if int(s) == i {
			a.order = append(a.order, rank(cent[i], s, byPosition))
		}
	}
	slices.Sort(a.order)
	rankOf := group(w.index, g, w.n)
	for r, s := range a.order {
		rankOf[s.index()] = int32(r)
	}
	m := len(a.order)
	size := group(w.size, g, w.n)
	clear(size[:m])
	for i, s := range seed {
		label[i] = dropped
		if s != dropped {
			label[i] = rankOf[s]
			size[label[i]]++
		}
	}
	w.cores[g] = int32(m)
}

// seeds finds the clusters of every chunk.
func (w *work) seeds(worker, g int, seed []int32) {
	a := &w.arena[worker]
	sim, order, live := group(w.sim, g, w.simSize()), group(w.order, g, w.n), group(w.live, g, len(w.chunks)*w.words)
	for k, c := range w.chunks {
		a.free = append(a.free[:0], w.candidates(live, k)...)
		assignClusters(w.simRows(sim, k), w.ld, order[c.lo:c.hi], a.free, int(w.threshold[g]), seed[c.lo:c.hi], int32(c.lo))
	}
}

// dropped is the seed and the label of a token that no core stands for.
const dropped = -1

// fill makes up for a budget that no threshold meets to the core: the members least similar to their seeds leave their
// clusters.
func (w *work) fill(worker, g int, seed []int32) {
	if !w.opt.Pooled() && (!w.opt.Regular || w.opt.Budget != Equal) {
		return
	}
	slots := w.quota[g]
	a, sim := &w.arena[worker], group(w.sim, g, w.simSize())
	a.order = a.order[:0]
	for k, c := range w.chunks {
		order := group(w.order, g, w.n)[c.lo:c.hi]
		a.place = grow(a.place, c.len())
		for r, i := range order {
			a.place[i] = uint16(r)
		}
		for r, i := range order {
			i := int32(c.lo) + int32(i)
			s := seed[i]
			if s == i {
				slots--
				continue
			}
			similarity := sim[w.starts[k]+int(a.place[int(s)-c.lo])*w.ld+r]
			a.order = append(a.order, rank(-float64(similarity)/32, i, false)) // a rank takes 1024 at most
		}
	}
	if slots <= 0 {
		return
	}
	slices.Sort(a.order)
	for _, r := range a.order[:min(slots, len(a.order))] {
		seed[r.index()] = r.index()
	}
}

// strides merges neighbours: the tokens that are not kept are cut into as many runs of equal length as there are slots.
func (w *work) strides(g int, seed []int32) {
	slots, _ := w.Budget()
	rest := 0
	for _, s := range group(w.single, g, w.n) {
		if s {
			slots--
		} else {
			rest++
		}
	}
	slots = max(slots, 1)
	run, first, k := -1, int32(0), 0
	for i, s := range group(w.single, g, w.n) {
		if s {
			continue
		}
		if r := k * slots / rest; r != run || int(positionOf(w, i)-positionOf(w, int(first))) >= maxTable {
			run, first = r, int32(i)
		}
		seed[i] = first
		k++
	}
}

func positionOf(w *work, i int) int32 { return w.in.Positions[w.sinks+i] }
