package oracle

import (
	"math"
	"sort"

	"github.com/semproxy/semproxy/compress"
)

// outlierScore is the distance of each token's un-rotated key from the mean direction, summed over heads.
func outlierScore(pre [][][]float64) []float64 {
	score := make([]float64, len(pre[0]))
	for _, head := range pre {
		if len(head) == 0 {
			continue
		}
		mean := make([]float64, len(head[0]))
		for _, row := range head {
			for k, x := range unit(row) {
				mean[k] += x / float64(len(head))
			}
		}
		mean = unit(mean)
		for i, row := range head {
			score[i] += 1 - dot(unit(row), mean)
		}
	}
	return score
}

// choose says which tokens of each group are never merged: those of keep and exact more a group; across: on average over the
// groups of a pool.
func choose(scores [][]float64, keep []bool, exact, pool int, across bool) [][]bool {
	type token struct{ g, i int }
	single := make([][]bool, len(scores))
	var all []token
	best := func(n int) {
		sort.SliceStable(all, func(a, b int) bool { return scores[all[a].g][all[a].i] > scores[all[b].g][all[b].i] })
		for _, t := range all[:min(n, len(all))] {
			single[t.g][t.i] = true
		}
		all = all[:0]
	}
	for g := range scores {
		single[g] = append([]bool(nil), keep...)
		for i, k := range keep {
			if !k {
				all = append(all, token{g, i})
			}
		}
		switch {
		case !across:
			best(exact)
		case (g+1)%pool == 0:
			best(exact * pool)
		}
	}
	return single
}

// weigh is the weight of each token of each group, in 1/256, times the group's mean head weight: with age the geometric mean
// of all ages plus recency over the token's own, out its mean outlier score and look what says how much it matters over its
// mean, age sqrt(out); sqrt(age (1 + look)/2 out) with look; sqrt(age look) where the page says itself what matters.
func weigh(p *Page, sinks int, scores, look [][]float64, heads int, opt compress.Options) [][]int {
	positions, n := p.Positions, len(scores[0])
	age := make([]float64, n)
	logs := 0.0
	for i := range age {
		age[i] = 1
		if opt.Recency > 0 {
			age[i] = float64(int(positions[len(positions)-1]-positions[sinks+i])+p.Behind) + opt.Recency
		}
		logs += math.Log(age[i]) / float64(n)
	}
	mean := make([]float64, len(look))
	for h := range look {
		for _, x := range look[h][sinks:] {
			mean[h] += x / float64(len(look[h])-sinks)
		}
	}
	out := make([][]int, len(scores))
	for g, score := range scores {
		out[g] = make([]int, n)
		head := 1.0
		if opt.HeadWeights != nil {
			head = 0
			for _, w := range opt.HeadWeights[g*heads : (g+1)*heads] {
				head += w / float64(heads)
			}
		}
		for i, a := range age {
			w := math.Exp(logs) / a
			if opt.Recency == 0 {
				w = 1
			}
			if look != nil {
				sum := 0.0
				for h := g * heads; h < (g+1)*heads; h++ {
					sum += attentive(look[h][sinks+i]/(mean[h]+1e-30), p.Importance != nil) / float64(heads)
				}
				w = math.Sqrt(w * sum)
			}
			if opt.Distinct && (p.Importance == nil || !opt.Attention) {
				w *= math.Sqrt(max(score[i], 0) / float64(heads))
			}
			out[g][i] = int(min(max(math.Round(256*head*w), 1), 1<<16-1))
		}
	}
	return out
}

// matter is the weight of each of head h's n tokens behind the sinks among the members of its core: its look over the mean.
func matter(look [][]float64, h, sinks, n int) []float64 {
	out, mean := make([]float64, n), 0.0
	for i := range out {
		out[i] = 1
	}
	if look == nil {
		return out
	}
	for _, x := range look[h][sinks:] {
		mean += x / float64(len(look[h])-sinks)
	}
	for i := range out {
		out[i] = max(look[h][sinks+i]/(mean+1e-30), 1e-3)
	}
	return out
}

// attentive is what look does to a token's price. The queries are a sample of those to come, the page's own word is not.
func attentive(look float64, said bool) float64 {
	if said {
		return max(look, 1e-3)
	}
	return (1 + look) / 2
}

// weighed is the similarity of token j to seed s in 1/1024, less the more j weighs.
func (q *problem) weighed(s, j int) int {
	cost := (steps - min(int(math.Floor(q.sim[s][j]*steps)), steps)) * q.weight[j] / 256
	return steps - min(cost, math.MaxInt16)
}

// fill takes the members least similar to their seeds out of their clusters until the quota is met.
func (q *problem) fill(label []int, count int) ([]int, int) {
	seed := make([]int, len(label))
	is := make([]bool, len(label))
	next := 0
	for _, i := range q.order { // seeds come first in their cluster's order
		if label[i] == next {
			for j, l := range label {
				if l == next {
					seed[j] = i
				}
			}
			is[i] = true
			next++
		}
	}
	var members []int
	for i := range label {
		if !is[i] {
			members = append(members, i)
		}
	}
	like := func(i int) int {
		if q.weight != nil {
			return q.weighed(seed[i], i)
		}
		return int(math.Floor(q.sim[seed[i]][i] * steps))
	}
	sort.SliceStable(members, func(a, b int) bool { return like(members[a]) < like(members[b]) })
	for _, i := range members[:min(max(q.quota-count, 0), len(members))] {
		is[i], seed[i] = true, i
	}
	// Number the clusters in the order of their seeds.
	number, count := make([]int, len(label)), 0
	for _, i := range q.order {
		if is[i] {
			number[i] = count
			count++
		}
	}
	for i, s := range seed {
		label[i] = number[s]
	}
	return label, count
}
