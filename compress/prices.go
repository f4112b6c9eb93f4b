package compress

import "math"

// weightOne is a weight of one: weights are whole numbers of 1/256, so that every machine computes the same.
const weightOne = 256

// maxWeight is the largest weight: 16 bits, so that vectors can multiply without widening.
const maxWeight = math.MaxUint16

// prices say what it costs to merge each token.
type prices struct {
	pg      *page
	looks   *looks
	age     []float64      // [n], what the age of a token does to its price
	scratch []priceScratch // [workers]
}

// priceScratch is one worker's.
type priceScratch struct {
	price []float64 // [n]
	cost  []uint16  // [chunk], weights by seed priority
}

// begin gets ready for a page, where the options weigh.
func (p *prices) begin(pg *page, looks *looks) {
	p.pg, p.looks = pg, looks
	if !pg.opt.Weighs() {
		return
	}
	p.age = grow(p.age, pg.n)
	pg.Ages(p.age)
}

// weigh turns the similarities s of one group into 1 - price * (1 - s), the price being that of the token which would
// join, so that one threshold on the result is a threshold on the cost of a merge. score is the group's.
func (p *prices) weigh(worker, g int, score []float32, near *similarities) {
	pg, a := p.pg, &p.scratch[worker]
	order, sim := group(near.order, g, pg.n), group(near.sim, g, near.simSize())
	a.price = grow(a.price, pg.n)
	p.of(g, score, a.price)
	for k, c := range near.chunks {
		n := c.len()
		a.cost = grow(a.cost, n)
		for r, i := range order[c.lo:c.hi] {
			a.cost[r] = fixedWeight(a.price[c.lo+int(i)])
		}
		rows := near.simRows(sim, k)
		for r := range n {
			from := r &^ 15 // below the diagonal nothing is read
			pg.kernel.Weigh(rows[r*near.ld+from:r*near.ld+n], a.cost[from:])
		}
	}
}

// of writes to dst, [n], what it costs to merge each token of a group. With age the share of recency, look that of the
// queries' attention or of the importance that the page brings, each one on average, and out the outlier score:
//
//	age sqrt(out)                 without queries
//	sqrt(age (1 + look)/2 out)    with queries, which are a sample of those to come
//	sqrt(age look)                with importance
func (p *prices) of(g int, score []float32, dst []float64) {
	pg := p.pg
	for i, age := range p.age {
		dst[i] = age
		if pg.opt.Distinct && !pg.told() {
			dst[i] *= math.Sqrt(max(float64(score[i]), 0) / float64(pg.heads))
		}
	}
	if p.looks.known() {
		from, to := pg.planesOf(g)
		for i, age := range p.age {
			sum := 0.0
			for plane := from; plane < to; plane++ {
				sum += p.attentive(p.looks.at(plane, i)) / float64(pg.heads)
			}
			dst[i] *= math.Sqrt(sum / age)
		}
	}
	head := pg.HeadWeight(g)
	for i := range dst {
		dst[i] *= head
	}
}

// attentive is what look does to a token's price.
func (p *prices) attentive(look float64) float64 {
	if p.pg.told() {
		return max(look, leastLook)
	}
	return (1 + look) / 2
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
