package compress

// assignClusters runs greedy seed-based clustering on one chunk and notes for each candidate its seed: seed[j] = base +
// seed's index in the chunk. sim has rows of n, cand holds the candidates in order of seed priority, live is scratch.
//
// The first candidate that is still free is the seed; it takes every free candidate at least t similar. Those that stay
// are compacted in place, so that nothing is looked at again after it has joined a cluster.
func assignClusters(sim []int16, n int, cand, live []uint16, t int, seed []int32, base int32) {
	live = live[:copy(live, cand)]
	for len(live) > 0 {
		s := live[0]
		row := sim[int(s)*n:][:n]
		seed[s] = base + int32(s)
		w := 0
		for _, j := range live[1:] {
			if int(row[j]) < t {
				live[w] = j
				w++
			} else {
				seed[j] = base + int32(s)
			}
		}
		live = live[:w]
	}
}

// selectTop moves the k indices with the highest score to the front of idx, in no order. Equal scores prefer the lower
// index. It is Hoare's selection with a median of three.
func selectTop(idx []int32, score []float32, k int) {
	before := func(a, b int32) bool {
		if score[a] != score[b] {
			return score[a] > score[b]
		}
		return a < b
	}
	lo, hi := 0, len(idx)-1
	for lo < hi {
		mid := (lo + hi) / 2
		if before(idx[mid], idx[lo]) {
			idx[mid], idx[lo] = idx[lo], idx[mid]
		}
		if before(idx[hi], idx[lo]) {
			idx[hi], idx[lo] = idx[lo], idx[hi]
		}
		if before(idx[hi], idx[mid]) {
			idx[hi], idx[mid] = idx[mid], idx[hi]
		}
		pivot := idx[mid]
		i, j := lo, hi
		for i <= j {
			for before(idx[i], pivot) {
				i++
			}
			for before(pivot, idx[j]) {
				j--
			}
			if i <= j {
				idx[i], idx[j] = idx[j], idx[i]
				i++
				j--
			}
		}
		switch {
		case k <= j:
			hi = j
		case k > i:
			lo = i
		default:
			return
		}
	}
}
