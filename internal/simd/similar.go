package simd

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
)

func mirror(s []float32, ld, n int) {
	for i := 4; i < n; i++ {
		for j := range i &^ 3 {
			s[i*ld+j] = s[j*ld+i]
		}
	}
}

func quantize(dst []int16, src []float32, scale float32, n, ld int) float64 {
	sum := 0.0
	for i, x := range src[:n] {
		sum += float64(x)
		// The shift makes every similarity positive, so that truncation is floor.
		y := float64(x*scale) + 1<<15
		dst[i] = int16(int32(min(max(y, 0), 1<<16-1)) - 1<<15)
	}
	for i := n; i < ld; i++ {
		dst[i] = math.MinInt16
	}
	return sum
}

func rank(order []uint16, keys []uint64) {
	for i := range keys {
		order[i] = uint16(i)
	}
	slices.SortFunc(order[:len(keys)], func(a, b uint16) int { return cmp.Compare(keys[a], keys[b]) })
}

func reorder(dst, src []int16, ld int, order []uint16) {
	for r, from := range order {
		row, to := src[int(from)*ld:][:ld], dst[r*ld:][:len(order)]
		for j := r + 1; j < len(to); j++ {
			to[j] = row[order[j]]
		}
	}
}

func count(sim []int16, ld int, starts []int, live []uint64, t int) int {
	clusters, words := 0, (ld+63)/64
	free := make([]uint64, 0, 16)
	for k, start := range starts {
		free = append(free[:0], live[k*words:(k+1)*words]...)
		for w := range free {
			for free[w] != 0 {
				clusters++
				seed := 64*w + bits.TrailingZeros64(free[w])
				free[w] &= free[w] - 1
				take(sim[start+seed*ld:][:ld], free, w, t)
			}
		}
	}
	return clusters
}

// take removes from free, its words from w on, those whose similarity is at least t.
func take(row []int16, free []uint64, w, t int) {
	for i := w; i < len(free); i++ {
		for rest := free[i]; rest != 0; rest &= rest - 1 {
			if j := bits.TrailingZeros64(rest); int(row[64*i+j]) >= t {
				free[i] &^= 1 << j
			}
		}
	}
}

func weigh(row []int16, weight []uint16) {
	weight = weight[:len(row)]
	for j, x := range row {
		cost := uint32(max(1024-int32(x), 0)) * uint32(weight[j]) / 256 //nolint:gosec // not negative
		row[j] = int16(1024 - int32(min(cost, math.MaxInt16)))          //nolint:gosec // within int16
	}
}
