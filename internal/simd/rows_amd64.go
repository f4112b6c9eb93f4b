//go:build !purego

package simd

func mulAVX512(add int) func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	return func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
		if mulNeed(c, ldc, a, ra, ca, b, ldb, m, k, n) {
			for j := 0; j < n; j += 32 { // the columns of b stay in the nearest cache
				for i := 0; i < m; i += 8 {
					mul8x32AVX512(&c[i*ldc+j], ldc, &a[i*ra], ra, ca, &b[j], ldb, k, add)
				}
			}
		}
	}
}

func mulAVX2(add int) func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
	return func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) {
		if mulNeed(c, ldc, a, ra, ca, b, ldb, m, k, n) {
			for j := 0; j < n; j += 16 {
				for i := 0; i < m; i += 4 {
					mul4x16AVX2(&c[i*ldc+j], ldc, &a[i*ra], ra, ca, &b[j], ldb, k, add)
				}
			}
		}
	}
}

// mulNeed reports whether there is anything to do, and panics where the slices are too short for it.
func mulNeed(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int) bool {
	if m == 0 || n == 0 {
		return false
	}
	if m%MulRows != 0 || n%Lanes != 0 {
		panic("simd: MulAdd takes whole tiles")
	}
	need(c, (m-1)*ldc+n)
	need(a, max((m-1)*ra+(k-1)*ca, (m-MulRows)*ra)+1)
	need(b, max((k-1)*ldb, 0)+n)
	return true
}

func maxRowsFast(rows func(top, x *float32, ld, n int), columns int) func(top, x []float32) {
	return func(top, x []float32) {
		if n := len(x) / max(len(top), 1); n > 0 && len(top)%Lanes == 0 {
			for j := 0; j < len(top); j += columns {
				rows(&top[j], &x[j], len(top), n)
			}
			return
		}
		maxRows(top, x)
	}
}

func expRowsFast(rows func(x *float32, ld int, top, sum, squares *float32, n int), columns int) func(x, top, sum, squares []float32) {
	return func(x, top, sum, squares []float32) {
		if n := len(x) / max(len(top), 1); n > 0 && len(top)%Lanes == 0 {
			need(sum, len(top))
			need(squares, len(top))
			for j := 0; j < len(top); j += columns {
				rows(&x[j], len(top), &top[j], &sum[j], &squares[j], n)
			}
			return
		}
		expRows(x, top, sum, squares)
	}
}

func rowDotsFast(dst, x []float32, sx int, y []float32, sy, d int) {
	rowDotsBy(dotFast, dst, x, sx, y, sy, d)
}

func rowDotsWide(dst, x []float32, sx int, y []float32, sy, d int) {
	n := len(dst)
	if n == 0 || n%4 != 0 || d == 0 || d%Pad != 0 {
		rowDotsBy(dotFast, dst, x, sx, y, sy, d)
		return
	}
	need(x, (n-1)*sx+d)
	need(y, (n-1)*sy+d)
	rowDotsAVX512(&dst[0], &x[0], sx, &y[0], sy, n/4, d)
}
