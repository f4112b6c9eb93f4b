package compress

// thresholdSteps is the resolution of a similarity threshold: t stands for t/1024.
const thresholdSteps = 1024

// gramGeneric adds to s[i*n+j], for j >= i, the dot product of rows i and j of u, [n, d].
// Blocks of two rows by four keep eight sums in registers.
func gramGeneric(s, u []float32, n, d int) {
	for i := 0; i < n; i += 2 {
		a0 := u[i*d : i*d+d]
		last := i+1 >= n
		a1 := a0
		if !last {
			a1 = u[(i+1)*d : (i+1)*d+d]
		}
		for j := i; j < n; j += 4 {
			if j+4 > n {
				for k := j; k < n; k++ {
					s[i*n+k] += dot(a0, u[k*d:k*d+d])
					if !last {
						s[(i+1)*n+k] += dot(a1, u[k*d:k*d+d])
					}
				}
				break
			}
			r := dot2x4(a0, a1, u[j*d:(j+4)*d])
			for k, x := range r[0] {
				s[i*n+j+k] += x
			}
			if !last {
				for k, x := range r[1] {
					s[(i+1)*n+j+k] += x
				}
			}
		}
	}
}

func dot2x4(a0, a1, b []float32) (r [2][4]float32) {
	d := len(a0)
	a1 = a1[:d]
	b0, b1, b2, b3 := b[:d], b[d:2*d], b[2*d:3*d], b[3*d:4*d]
	var s00, s01, s02, s03, s10, s11, s12, s13 float32
	for k, x := range a0 {
		y := a1[k]
		p, q := b0[k], b1[k]
		s00 += x * p
		s10 += y * p
		s01 += x * q
		s11 += y * q
		p, q = b2[k], b3[k]
		s02 += x * p
		s12 += y * p
		s03 += x * q
		s13 += y * q
	}
	return [2][4]float32{{s00, s01, s02, s03}, {s10, s11, s12, s13}}
}

func dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

// quantize turns the upper triangle of s, sums over heads, into the whole matrix q of floor(1024 * s / heads), and adds up
// the rows of s / heads: the centrality of each token in its chunk.
//
// The floor loses nothing: thresholds are whole numbers, and floor(x) >= t exactly when x >= t.
func quantize(q []int16, centrality []float32, s []float32, n int, heads int) {
	scale := thresholdSteps / float64(heads)
	for i := range n {
		centrality[i] = 0
	}
	for i := range n {
		sum := 0.0
		for j := i; j < n; j++ {
			x := float64(s[i*n+j])
			// The shift makes every value positive, so that truncation is floor.
			v := int16(int32(x*scale+2*thresholdSteps) - 2*thresholdSteps)
			q[i*n+j], q[j*n+i] = v, v
			sum += x
			if j > i {
				centrality[j] += s[i*n+j]
			}
		}
		centrality[i] = float32(float64(centrality[i])+sum) / float32(heads)
	}
}
