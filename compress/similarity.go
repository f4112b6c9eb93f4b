package compress

// thresholdSteps is the resolution of a similarity threshold: t stands for t/1024.
const thresholdSteps = 1024

// quantize turns the upper triangle of s, sums over heads in rows of ld, into the whole matrix q of floor(1024 * s / heads), and adds up
// the rows of s / heads: the centrality of each token in its chunk.
//
// The floor loses nothing: thresholds are whole numbers, and floor(x) >= t exactly when x >= t.
func quantize(q []int16, centrality []float64, s []float32, n, ld, heads int) {
	scale := thresholdSteps / float64(heads)
	clear(centrality)
	for i := range n {
		row, cent := s[i*ld+i:i*ld+n], centrality[i:n]
		qrow := q[i*n+i : i*n+n]
		sum := 0.0
		for j, x := range row {
			// The shift makes every value positive, so that truncation is floor.
			wide := float64(x)
			v := int16(int32(wide*scale+2*thresholdSteps) - 2*thresholdSteps)
			qrow[j] = v
			q[(i+j)*n+i] = v
			sum += wide
			cent[j] += wide
		}
		// The loop has added the row's first entry to its own token, which the sum holds too.
		centrality[i] = (centrality[i] - float64(row[0]) + sum) / float64(heads)
	}
}
