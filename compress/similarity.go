package compress

// thresholdSteps is the resolution of a similarity threshold: t stands for t/1024.
const thresholdSteps = 1024

// quantize turns the upper triangle of s, sums over heads in rows of ld, into the whole matrix q of floor(1024 * s / heads), and adds up
// the rows of s / heads: the centrality of each token in its chunk.
//
// The floor loses nothing: thresholds are whole numbers, and floor(x) >= t exactly when x >= t.
func quantize(q []int16, centrality []float32, s []float32, n, ld, heads int) {
	scale := thresholdSteps / float64(heads)
	for i := range n {
		centrality[i] = 0
	}
	for i := range n {
		row, cent := s[i*ld+i:i*ld+n], centrality[i:n]
		qrow := q[i*n+i : i*n+n]
		sum := 0.0
		for j, x := range row {
			// The shift makes every value positive, so that truncation is floor.
			v := int16(int32(float64(x)*scale+2*thresholdSteps) - 2*thresholdSteps)
			qrow[j] = v
			q[(i+j)*n+i] = v
			sum += float64(x)
			cent[j] += x
		}
		// The loop has added the row's first entry, which is not below the diagonal.
		centrality[i] = float32(float64(centrality[i]-row[0])+sum) / float32(heads)
	}
}
