package compress

import "math"

// weightOne is a weight of one: weights are whole numbers of 1/256, so that every machine computes the same.
const weightOne = 256

// maxWeight is the largest weight: 16 bits, so that vectors can multiply without widening.
const maxWeight = math.MaxUint16

// lowest is the threshold below every similarity. Weighed ones go down to the end of int16.
func (w *work) lowest() int {
	if w.opt.weighs() {
		return math.MinInt16
	}
	return -thresholdSteps - 1
}

// ages computes what the age of a token does to its weight: the geometric mean of age + Recency over all tokens, divided by
// the token's own. So weights are around one whatever the length of the page.
func (w *work) ages() {
	if w.opt.Recency == 0 {
		for i := range w.age {
			w.age[i] = 1
		}
		return
	}
	last := float64(w.in.Positions[w.in.Tokens-1])
	logs := 0.0
	for i := range w.age {
		w.age[i] = last - float64(positionOf(w, i)) + w.opt.Recency
		logs += math.Log(w.age[i])
	}
	mean := math.Exp(logs / float64(w.n))
	for i, a := range w.age {
		w.age[i] = mean / a
	}
}

// weigh turns the similarities s of one group into 1 - weight * (1 - s), the weight being that of the token which would
// join, so that one threshold on the result is a threshold on the cost of a merge.
func (w *work) weigh(worker, g int) {
	score, order, sim, a := group(w.score, g, w.n), group(w.order, g, w.n), group(w.sim, g, w.simSize()), &w.arena[worker]
	head := w.headWeight(g)
	for k, c := range w.chunks {
		n := c.len()
		a.cost = grow(a.cost, n)
		for r, i := range order[c.lo:c.hi] {
			i := c.lo + int(i)
			x := w.age[i] * head
			if w.opt.Distinct {
				x *= math.Sqrt(max(float64(score[i]), 0) / float64(w.heads))
			}
			a.cost[r] = fixedWeight(x)
		}
		rows := w.simRows(sim, k)
		for r := range n {
			from := r &^ 15 // below the diagonal nothing is read
			w.kernel.Weigh(rows[r*w.ld+from:r*w.ld+n], a.cost[from:])
		}
	}
}

// headWeight is the mean weight of a group's heads.
func (w *work) headWeight(g int) float64 {
	if w.opt.HeadWeights == nil {
		return 1
	}
	sum := 0.0
	for _, x := range group(w.opt.HeadWeights, g, w.heads) {
		sum += x
	}
	return sum / float64(w.heads)
}

// fixedWeight rounds a weight to 1/256. It is never nothing, and what is no number weighs least.
func fixedWeight(x float64) uint16 {
	switch x = math.Round(x * weightOne); {
	case !(x >= 1):
		return 1
	case x > maxWeight:
		return maxWeight
	}
	return uint16(x)
}
