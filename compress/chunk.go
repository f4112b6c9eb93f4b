package compress

// chunk is the range [lo, hi) of tokens between the sinks and the recent window.
type chunk struct{ lo, hi int }

func (c chunk) len() int { return c.hi - c.lo }

// chunks closes a chunk after token i when a delimiter ends it at minLen or more, when it reaches maxLen, or at the end.
// boundary is nil or holds n marks.
func chunks(dst []chunk, boundary []byte, n, minLen, maxLen int) []chunk {
	dst = dst[:0]
	start := 0
	for i := range n {
		l := i - start + 1
		if (boundary != nil && boundary[i] != 0 && l >= minLen) || l >= maxLen || i == n-1 {
			dst = append(dst, chunk{start, i + 1})
			start = i + 1
		}
	}
	return dst
}

// simStride is the length of a row of similarities that holds chunks of n tokens: 64 or 128, for which there are kernels,
// where that is enough.
func simStride(n int) int {
	switch {
	case n <= 64:
		return 64
	case n <= 128:
		return 128
	}
	return (n + 15) &^ 15
}

// similarities is a group's memory for those inside its chunks. Rows and columns of a chunk are by seed priority; what lies
// below the diagonal is unspecified.
type similarities struct {
	ld     int   // of every row
	words  int   // of the bits of a chunk's candidates
	starts []int // [chunks+1], where each chunk's rows start
}

func (s *similarities) fit(chunks []chunk) {
	longest, at := 0, 0
	for _, c := range chunks {
		longest = max(longest, c.len())
	}
	s.ld = simStride(longest)
	s.words = (s.ld + 63) / 64
	s.starts = grow(s.starts, len(chunks)+1)
	for k, c := range chunks {
		s.starts[k] = at
		at += c.len() * s.ld
	}
	s.starts[len(chunks)] = at
}

// simSize is the number of similarities of a group.
func (s *similarities) simSize() int { return s.starts[len(s.starts)-1] }

// simRows is chunk k's part of a group's similarities.
func (s *similarities) simRows(sim []int16, k int) []int16 { return sim[s.starts[k]:s.starts[k+1]] }

// candidates is chunk k's part of a group's candidates.
func (s *similarities) candidates(live []uint64, k int) []uint64 {
	return live[k*s.words : (k+1)*s.words]
}
