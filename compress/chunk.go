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

// layout is how the tokens between the edges are cut into chunks, and how a group's memory for what is similar inside them is laid out.
type layout struct {
	n       int // tokens
	chunks  []chunk
	chunkOf []int32 // [n]
	ld      int     // of every row of similarities
	words   int     // of the bits of a chunk's candidates
	starts  []int   // [chunks+1], where each chunk's rows start
}

// cut makes the chunks: see chunks.
func (l *layout) cut(boundary []byte, n, minLen, maxLen int) {
	l.n, l.chunkOf = n, grow(l.chunkOf, n)
	l.chunks = chunks(l.chunks, boundary, n, minLen, maxLen)
	longest, at := 0, 0
	for k, c := range l.chunks {
		longest = max(longest, c.len())
		for i := c.lo; i < c.hi; i++ {
			l.chunkOf[i] = int32(k)
		}
	}
	l.ld = simStride(longest)
	l.words = (l.ld + 63) / 64
	l.starts = grow(l.starts, len(l.chunks)+1)
	for k, c := range l.chunks {
		l.starts[k] = at
		at += c.len() * l.ld
	}
	l.starts[len(l.chunks)] = at
}

// span is the largest distance between two tokens of one chunk. positions are those of the n tokens.
func (l *layout) span(positions []int32) int {
	span := 0
	for _, c := range l.chunks {
		span = max(span, int(positions[c.hi-1]-positions[c.lo]))
	}
	return span
}

// chunkAt is the chunk that token i is in.
func (l *layout) chunkAt(i int) *chunk { return &l.chunks[l.chunkOf[i]] }

// simSize is the number of similarities of a group.
func (l *layout) simSize() int { return l.starts[len(l.starts)-1] }

// simRows is chunk k's part of a group's similarities.
func (l *layout) simRows(sim []int16, k int) []int16 { return sim[l.starts[k]:l.starts[k+1]] }

// liveSize is the number of words of a group's candidates.
func (l *layout) liveSize() int { return len(l.chunks) * l.words }

// liveBits is chunk k's part of a group's candidates.
func (l *layout) liveBits(live []uint64, k int) []uint64 { return live[k*l.words : (k+1)*l.words] }
