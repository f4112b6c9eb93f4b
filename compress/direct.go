package compress

// isDirect reports whether the threshold is given and nothing else needs the similarities, so that only those between a
// seed and the tokens that are still free are computed: at 4x a quarter of them.
func (w *work) isDirect() bool {
	return w.opt.Budget == Fixed && w.opt.Rest == Cluster && w.opt.Exact == 0 && w.heads == 1
}

// direct clusters one block of chunks of one plane.
func (w *work) direct(worker, task int) {
	plane, block := task/w.blocks, task%w.blocks
	a, d := &w.arena[worker], w.in.Dim
	t := float32(floor(w.opt.Threshold * ThresholdSteps))
	for k := block * chunkBlock; k < min((block+1)*chunkBlock, len(w.chunks)); k++ {
		c := &w.chunks[k]
		w.unitKeys(a, plane, k)
		// The sum of a token's similarities is its similarity to the sum.
		sum := w.sums[(plane*len(w.chunks)+k)*d:][:d]
		cent, seed := group(w.centrality, plane, w.n)[c.lo:c.hi], group(w.seed, plane, w.n)[c.lo:c.hi]
		a.keys, a.live, a.dots = grow(a.keys, c.len()), grow(a.live, c.len()+4), grow(a.dots, c.len()+4)
		for i := range cent {
			cent[i] = float64(w.kernel.Dot(a.units[i*w.stride:i*w.stride+d], sum))
			seed[i] = int32(c.lo + i)
			a.keys[i] = uint64(rank(cent[i], int32(i), w.opt.ByPosition))
		}
		w.kernel.Rank(a.live, a.keys)
		n := 0
		for _, i := range a.live[:c.len()] {
			if !w.keep[c.lo+int(i)] {
				a.live[n] = i
				n++
			}
		}
		w.greedy(a, n, t, seed, int32(c.lo))
	}
}

// greedy is assignClusters with the first n of a.live as candidates and similarities computed on the way.
func (w *work) greedy(a *arena, n int, t float32, seed []int32, base int32) {
	for n > 0 {
		s := int(a.live[0])
		rest := a.live[1:n]
		n4 := (len(rest) + 3) &^ 3
		clear(a.live[n : n4+1]) // any row does for what fills up the last four
		w.kernel.DotsOf(a.dots[:n4], a.units[s*w.stride:], a.units, a.live[1:n4+1], w.stride)
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
