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
