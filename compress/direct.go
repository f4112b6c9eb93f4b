package compress

// direct clusters one block of chunks of one plane at the given threshold: see page.direct.
func (c *comparing) direct(worker, task int) {
	pg, near, a, kn := c.pg, &c.near, &c.scratch[worker], c.pg.kernel
	plane, d, blocks := task/near.blocks(), pg.in.Dim, near.blocks()
	from, to := near.blockOf(task % blocks)
	for k := from; k < to; k++ {
		at := &near.chunks[k]
		units := c.keys.of(worker, plane, k)
		// The sum of a token's similarities is its similarity to the sum.
		sum := c.keys.sum(plane, k)
		cent, seed := group(near.centrality, plane, pg.n)[at.lo:at.hi], group(near.seed, plane, pg.n)[at.lo:at.hi]
		a.keys, a.live, a.dots = grow(a.keys, at.len()), grow(a.live, at.len()+4), grow(a.dots, at.len()+4)
		for i := range cent {
			cent[i] = float64(kn.Dot(units[i*pg.stride:i*pg.stride+d], sum))
			seed[i] = int32(at.lo + i)
			a.keys[i] = uint64(rank(cent[i], int32(i), pg.opt.ByPosition))
		}
		kn.Rank(a.live, a.keys)
		n := 0
		for _, i := range a.live[:at.len()] {
			if !pg.keep[at.lo+int(i)] {
				a.live[n] = i
				n++
			}
		}
		a.greedy(pg, units, n, seed, int32(at.lo))
	}
}

// greedy is assignClusters with the first n of a.live as candidates and similarities computed on the way.
func (a *compareScratch) greedy(pg *page, units []float32, n int, seed []int32, base int32) {
	t := float32(floor(pg.opt.Threshold * ThresholdSteps))
	for n > 0 {
		s := int(a.live[0])
		rest := a.live[1:n]
		n4 := (len(rest) + 3) &^ 3
		clear(a.live[n : n4+1]) // any row does for what fills up the last four
		pg.kernel.DotsOf(a.dots[:n4], units[s*pg.stride:], units, a.live[1:n4+1], pg.stride)
		n = 0
		for k, j := range rest {
			if a.dots[k]*ThresholdSteps < t {
				a.live[n] = j
				n++
			} else {
				seed[j] = base + int32(s)
			}
		}
	}
}
