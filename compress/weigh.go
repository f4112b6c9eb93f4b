package compress

import "math"

// weightOne is a weight of one: weights are whole numbers of 1/256, so that every machine computes the same.
const weightOne = 256

// maxWeight is the largest weight: 16 bits, so that vectors can multiply without widening.
const maxWeight = math.MaxUint16

// weigh turns the similarities s of one group into 1 - weight * (1 - s), the weight being that of the token which would
// join, so that one threshold on the result is a threshold on the cost of a merge.
func (w *work) weigh(worker, g int) {
	order, sim, a := group(w.order, g, w.n), group(w.sim, g, w.simSize()), &w.arena[worker]
	a.price = grow(a.price, w.n)
	w.prices(g, a.price)
	for k, c := range w.chunks {
		n := c.len()
		a.cost = grow(a.cost, n)
		for r, i := range order[c.lo:c.hi] {
			a.cost[r] = fixedWeight(a.price[c.lo+int(i)])
		}
		rows := w.simRows(sim, k)
		for r := range n {
			from := r &^ 15 // below the diagonal nothing is read
			w.kernel.Weigh(rows[r*w.ld+from:r*w.ld+n], a.cost[from:])
		}
	}
}

// prices writes to dst, [n], what it costs to merge each token of a group. With age the share of recency, look that of the
// queries' attention or of the importance that the page brings, each one on average, and out the outlier score:
//
//	age sqrt(out)                 without queries
//	sqrt(age (1 + look)/2 out)    with queries, which are a sample of those to come
//	sqrt(age look)                with importance
func (w *work) prices(g int, dst []float64) {
	score, head := group(w.score, g, w.n), w.HeadWeight(g)
	for i, age := range w.age {
		dst[i] = age
		if w.opt.Distinct && !w.told() {
			dst[i] *= math.Sqrt(max(float64(score[i]), 0) / float64(w.heads))
		}
	}
	if look := w.looked(); look != nil {
		for i, age := range w.age {
			sum := 0.0
			for plane := g * w.heads; plane < (g+1)*w.heads; plane++ {
				of := group(look, plane, w.in.Tokens)[w.sinks:]
				sum += w.attentive(float64(of[i])/w.meanLook[plane]) / float64(w.heads)
			}
			dst[i] *= math.Sqrt(sum / age)
		}
	}
	for i := range dst {
		dst[i] *= head
	}
}

// told reports whether the page says itself how much its tokens matter, and the options listen.
func (w *work) told() bool { return w.opt.Attention && w.in.Importance != nil }

// leastLook bounds from below how much less than the mean a token can matter.
const leastLook = 1e-3

// attentive is what look does to a token's price.
func (w *work) attentive(look float64) float64 {
	if w.told() {
		return max(look, leastLook)
	}
	return (1 + look) / 2
}

// looked is what says how much tokens matter, [planes, tokens]: the page's own word, else its queries'; nil: nothing.
func (w *work) looked() []float32 {
	switch {
	case !w.opt.Attention:
		return nil
	case w.told():
		return w.in.Importance
	case w.learns():
		return w.look
	}
	return nil
}

// meanLooks is the mean of looked over each plane's tokens behind the sinks, which get attention whatever they mean.
func (w *work) meanLooks() {
	look := w.looked()
	if look == nil {
		return
	}
	w.meanLook = grow(w.meanLook, w.in.planes())
	for plane := range w.meanLook {
		sum := 0.0
		of := group(look, plane, w.in.Tokens)[w.sinks:]
		for _, x := range of {
			sum += float64(x)
		}
		w.meanLook[plane] = sum/float64(len(of)) + 1e-30
	}
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
