package compress

// maxChunk is the longest chunk. Doubling stops there: a longer one costs more than it can merge.
const maxChunk = 1024

// chunk is the range [lo, hi) of tokens between the sinks and the recent window; sim is where its similarities start.
type chunk struct {
	lo, hi, sim int
}

func (c chunk) len() int { return c.hi - c.lo }

// chunks closes a chunk after token i when a delimiter ends it at minLen or more, when it reaches maxLen, or at the end.
// boundary is nil or holds n marks.
func chunks(dst []chunk, boundary []byte, n, minLen, maxLen int) []chunk {
	dst = dst[:0]
	start, sim := 0, 0
	for i := range n {
		l := i - start + 1
		if (boundary != nil && boundary[i] != 0 && l >= minLen) || l >= maxLen || i == n-1 {
			dst = append(dst, chunk{start, i + 1, sim})
			start = i + 1
			sim += l * l
		}
	}
	return dst
}
