package compress

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

// ranked is a token with its seed priority, packed so that plain integers sort into seed order: the more central first,
// then the lower index.
type ranked uint64

// rank takes indices below 2^20, as many as a page may have, and centralities within MaxChunk of zero, to 2^-32.
func rank(centrality float64, index int32, byPosition bool) ranked {
	key := uint64(0)
	if !byPosition {
		key = uint64((2*MaxChunk - centrality) * (1 << 32))
	}
	return ranked(key<<20 | uint64(index))
}

func (r ranked) index() int32 { return int32(r & (1<<20 - 1)) }
