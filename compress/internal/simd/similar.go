package simd

import "math"

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

// count compacts the candidates that stay free in place, so that nothing is looked at again after it joined a cluster.
func count(sim []int16, ld int, cand, scratch []uint16, _ *[2]uint64, t, limit int) int {
	live := scratch[:copy(scratch, cand)]
	clusters := 0
	for len(live) > 0 {
		if clusters++; clusters > limit {
			return clusters
		}
		row := sim[int(live[0])*ld:][:ld]
		w := 0
		for _, j := range live[1:] {
			live[w] = j
			if int(row[j]) < t {
				w++
			}
		}
		live = live[:w]
	}
	return clusters
}

func expSum(x []float32, top float32) float32 {
	sum := 0.0
	for i, v := range x {
		e := math.Exp(float64(max(v-top, -87)))
		x[i] = float32(e)
		sum += e
	}
	return float32(sum)
}

func weigh(row []int16, weight []uint16) {
	weight = weight[:len(row)]
	for j, x := range row {
		cost := uint32(max(1024-int32(x), 0)) * uint32(weight[j]) / 256 //nolint:gosec // not negative
		row[j] = int16(1024 - int32(min(cost, math.MaxInt16)))          //nolint:gosec // within int16
	}
}
