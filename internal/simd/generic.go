package simd

var generic = Kernels{Name: "go", Gram: gram, Dots: dots, DotsOf: dotsOf, Dot: dot, Axpy: axpy, Axpy4: axpy4, Scale: scale, Unrotate: unrotate,
	ScaleAdd: scaleAdd, Axpy2: axpy2, RotateBy: rotateBy, Mirror: mirror, Quantize: quantize,
	Weigh: weigh, Rank: rank, Reorder: reorder, Count: count, Mul: mulBy(mulAdd), MulAdd: mulAdd, MaxRows: maxRows, ExpRows: expRows, RowDots: rowDots,
	MaxAbs: maxAbs, NarrowE4M3: narrowE4M3, Hadamard: hadamard, RoundLoss: roundLoss, RoundCodes: roundCodes, Levels: levels,
	BF16: genericBF16, F16: genericF16}

func gram(s []float32, ld int, u []float32, n, stride int) {
	n4 := (n + 3) &^ 3
	for i := 0; i < n4; i += 4 {
		dots(s[i*ld+i:], ld, u[i*stride:], u[i*stride:], 4, n4-i, stride)
	}
}

// dots takes blocks of two rows by four, which keeps eight sums in registers.
func dots(s []float32, ld int, a, b []float32, na, nb, stride int) {
	for i := 0; i < na; i += 2 {
		a0, a1 := a[i*stride:(i+1)*stride], a[(i+1)*stride:(i+2)*stride]
		for j := 0; j < nb; j += 4 {
			s0, s1 := s[i*ld+j:][:4], s[(i+1)*ld+j:][:4]
			block(s0, s1, a0, a1, b[j*stride:(j+4)*stride])
		}
	}
}

func dotsOf(dst, q, rows []float32, index []uint16, stride int) {
	for k, i := range index {
		dst[k] = dot(q[:stride], rows[int(i)*stride:(int(i)+1)*stride])
	}
}

func block(s0, s1, a0, a1, b []float32) {
	d := len(a0)
	a1 = a1[:d]
	b0, b1, b2, b3 := b[:d], b[d:2*d], b[2*d:3*d], b[3*d:4*d]
	var x0, x1, x2, x3, y0, y1, y2, y3 float32
	for k, x := range a0 {
		y := a1[k]
		p, q := b0[k], b1[k]
		x0 += x * p
		y0 += y * p
		x1 += x * q
		y1 += y * q
		p, q = b2[k], b3[k]
		x2 += x * p
		y2 += y * p
		x3 += x * q
		y3 += y * q
	}
	s0[0] += x0
	s0[1] += x1
	s0[2] += x2
	s0[3] += x3
	s1[0] += y0
	s1[1] += y1
	s1[2] += y2
	s1[3] += y3
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

func axpy(dst, src []float32, w float32) {
	src = src[:len(dst)]
	for i, x := range src {
		dst[i] += w * x
	}
}

func axpy4(dst, rows []float32, stride int, w *[4]float32) {
	for i, x := range w {
		axpy(dst, rows[i*stride:], x)
	}
}

func scale(x []float32, w float32) {
	for i := range x {
		x[i] *= w
	}
}

func unrotate(lo, hi, cos, sin []float32) {
	n := len(lo)
	hi, cos, sin = hi[:n], cos[:n], sin[:n]
	for i, u := range lo {
		v, c, s := hi[i], cos[i], sin[i]
		lo[i], hi[i] = u*c+v*s, v*c-u*s
	}
}

func scaleAdd(x []float32, stride int, sum, w []float32) {
	for r, by := range w {
		row := x[r*stride:][:len(sum)]
		for i, v := range row {
			row[i] = v * by
			sum[i] += row[i]
		}
	}
}

func axpy2(dst, sum, src []float32, w, v float32) {
	dst, sum = dst[:len(src)], sum[:len(src)]
	for i, x := range src {
		dst[i] += w * x
		sum[i] += v * x
	}
}

func rotateBy(lo, hi, cos, sin, freq []float32, delta, scale float32) {
	n := len(lo)
	hi, cos, sin, freq = hi[:n], cos[:n], sin[:n], freq[:n]
	for i, a := range lo {
		x := delta * freq[i]
		y := x * x
		s := x * (1 - y*(1.0/6-y*(1.0/120-y*(1.0/5040))))
		c := 1 - y*(0.5-y*(1.0/24-y*(1.0/720-y*(1.0/40320))))
		u := scale * (cos[i]*c - sin[i]*s)
		v := scale * (sin[i]*c + cos[i]*s)
		b := hi[i]
		lo[i], hi[i] = a*u-b*v, b*u+a*v
	}
}
