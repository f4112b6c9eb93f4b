package compress

import "slices"

// runAssign turns thresholds into clusters.
func (w *work) runAssign(p *pool) { p.run(&w.phase, w.groups, w.assignTask) }

// assign numbers the clusters of one group in the order of their seeds and lists their members.
func (w *work) assign(worker, g int) {
	seed, label := group(w.seed, g, w.n), group(w.label, g, w.n)
	for i := range seed {
		seed[i] = int32(i)
	}
	if !w.whole {
		w.seeds(worker, g, seed)
	}
	// Rank the seeds.
	a := &w.arena[worker]
	a.order = a.order[:0]
	cent := group(w.centrality, g, w.n)
	for i, s := range seed {
		if int(s) == i {
			a.order = append(a.order, rank(cent[i], s, w.whole || w.opt.ByPosition))
		}
	}
	slices.Sort(a.order)
	rankOf := group(w.index, g, w.n)
	for r, s := range a.order {
		rankOf[s.index()] = int32(r)
	}
	// Count, then place: a counting sort keeps the members of a cluster in order of position.
	m := len(a.order)
	start := group(w.start, g, w.n+1)[:m+1]
	clear(start)
	for i, s := range seed {
		label[i] = rankOf[s]
		start[label[i]+1]++
	}
	for c := range m {
		start[c+1] += start[c]
	}
	next := group(w.index, g, w.n)[:m]
	copy(next, start)
	member := group(w.member, g, w.n)
	for i, l := range label {
		member[next[l]] = int32(i)
		next[l]++
	}
	w.cores[g] = int32(m)
}

func (w *work) seeds(worker, g int, seed []int32) {
	a := &w.arena[worker]
	sim, cand := group(w.sim, g, w.simLen), group(w.cand, g, w.n)
	lens := group(w.candLen, g, len(w.chunks))
	for k, c := range w.chunks {
		n := c.len()
		a.live = grow(a.live, n)
		assignClusters(sim[c.sim:c.sim+n*n], n, cand[c.lo:c.lo+int(lens[k])], a.live, int(w.threshold[g]), seed[c.lo:c.hi], int32(c.lo))
	}
}
