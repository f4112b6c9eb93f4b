package compress

// maxChunk is the longest chunk. Doubling stops there: a longer one costs more than it can merge.
const maxChunk = 1024

// chunk is the range [lo, hi) of tokens between the sinks and the recent window; sim is where its similarities start.
// Its rows are ld long: 64 or 128, for which there are kernels, where that holds the chunk.
type chunk struct {
	lo, hi, sim, ld int
}

func simStride(n int) int {
	switch {
	case n <= 64:
		return 64
	case n <= 128:
		return 128
	}
	return (n + 15) &^ 15
}

func (c chunk) len() int { return c.hi - c.lo }

// rows is the chunk's part of a group's similarities, [len, ld].
func (c chunk) rows(sim []int16) []int16 { return sim[c.sim : c.sim+c.len()*c.ld] }

// chunks closes a chunk after token i when a delimiter ends it at minLen or more, when it reaches maxLen, or at the end.
// boundary is nil or holds n marks.
func chunks(dst []chunk, boundary []byte, n, minLen, maxLen int) []chunk {
	dst = dst[:0]
	start, sim := 0, 0
	for i := range n {
		l := i - start + 1
		if (boundary != nil && boundary[i] != 0 && l >= minLen) || l >= maxLen || i == n-1 {
			dst = append(dst, chunk{start, i + 1, sim, simStride(l)})
			start = i + 1
			sim += l * simStride(l)
		}
	}
	return dst
}
