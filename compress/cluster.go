package compress

import "math/bits"

// assignClusters runs greedy seed-based clustering on one chunk and notes for each candidate its seed: seed[j] = base +
// seed's index in the chunk. The rows of sim, ld long, are by seed priority and order holds their tokens; live has a bit for
// each candidate and is used up.
//
// The first candidate that is still free is the seed; it takes every free one behind it that is at least t similar.
func assignClusters(sim []int16, ld int, order []uint16, live []uint64, t int, seed []int32, base int32) {
	for k := range live {
		for live[k] != 0 {
			s := 64*k + bits.TrailingZeros64(live[k])
			live[k] &= live[k] - 1
			row, name := sim[s*ld:][:ld], base+int32(order[s])
			seed[order[s]] = name
			for i := k; i < len(live); i++ {
				for rest := live[i]; rest != 0; rest &= rest - 1 {
					if j := bits.TrailingZeros64(rest); int(row[64*i+j]) >= t {
						live[i] &^= 1 << j
						seed[order[64*i+j]] = name
					}
				}
			}
		}
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
