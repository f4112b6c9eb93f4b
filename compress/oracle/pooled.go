package oracle

import "math"

// pooled finds the threshold of heads that share a total: the highest at which their clusters, rounded up to whole granules
// together with the edge, are no more than it. Granules that are left go to the head with the fewest clusters, one after
// the other. It reports false when even the lowest leaves too many.
func pooled(qs []problem, best []int, total, edge, granule int) bool {
	round := func(q *problem, n int) int {
		whole := func(n int) int { return int(math.Ceil(float64(n+edge)/float64(granule))) * granule }
		if most := (len(q.lo) + edge) / granule * granule; most > edge && whole(n) > most {
			return most - edge
		}
		return whole(n) - edge
	}
	quotas := func(t int) (out []int, sum int) {
		for i := range qs {
			_, c := qs[i].cluster(t)
			out = append(out, round(&qs[i], c))
			sum += out[i]
		}
		return out, sum
	}
	lo, hi := -steps-1, steps+1
	if qs[0].weight != nil {
		lo = math.MinInt16
	}
	quota, sum := quotas(lo)
	ok := sum <= total
	for hi-lo > 1 {
		t := int(math.Floor(float64(lo+hi) / 2))
		if q, s := quotas(t); s <= total {
			lo, quota, sum = t, q, s
		} else {
			hi = t
		}
	}
	for sum+granule <= total {
		least := -1
		for i := range qs {
			if round(&qs[i], quota[i]+1) > quota[i] && (least < 0 || quota[i] < quota[least]) {
				least = i
			}
		}
		if least < 0 {
			break
		}
		quota[least] += granule
		sum += granule
	}
	for i := range qs {
		best[i], qs[i].quota = lo, quota[i]
	}
	return ok
}
