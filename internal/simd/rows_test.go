package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestMulAdd(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	for _, set := range All() {
		for _, n := range []int{32, 64, 96, 128} {
			for _, m := range []int{8, 16, 40} {
				for _, k := range []int{0, 1, 3, 4, 7, 64, 129} {
					ldb, ldc := n+r.IntN(3), n+r.IntN(5)
					ra, ca := k+r.IntN(3), 1 // rows, or below columns
					if r.IntN(2) == 0 {
						ra, ca = 1, m+r.IntN(3)
					}
					a, b, c := random(r, (m-1)*ra+max(k-1, 0)*ca+1, 1), random(r, max((k-1)*ldb, 0)+n, 3), random(r, (m-1)*ldc+n, 2)
					got, written := append([]float32{}, c...), append([]float32{}, c...)
					set.MulAdd(got, ldc, a, ra, ca, b, ldb, m, k, n)
					set.Mul(written, ldc, a, ra, ca, b, ldb, m, k, n)
					for i, x := range written {
						before := c[i]
						if i%ldc >= n {
							before = 0
						}
						if !near(x, float64(got[i]-before), 20) {
							t.Fatalf("%s: element %d of a product written = %v, added to %v = %v", set.Name, i, x, c[i], got[i])
						}
					}
					for i := range got {
						row, column := i/ldc, i%ldc
						want, size := float64(c[i]), 1.0
						if column < n {
							for j := range k {
								p := float64(a[row*ra+j*ca]) * float64(b[j*ldb+column])
								want += p
								size += math.Abs(p)
							}
						} else if got[i] != c[i] {
							t.Fatalf("%s: %d of row %d of c is behind its %d columns and was written", set.Name, column, row, n)
						}
						if !near(got[i], want, size) {
							t.Fatalf("%s: [%d, %d] by [%d, %d], rows of %d, %d: [%d, %d] = %v, want %v", set.Name, m, k, k, n, ra, ca, row, column, got[i], want)
						}
					}
				}
			}
		}
	}
}

func TestRowsUnderTheirTops(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 34))
	for _, set := range All() {
		for _, n := range []int{32, 64, 96} {
			for rows := range 9 {
				x := random(r, rows*n, 1)
				for i := range x {
					if x[i] *= 5; i%17 == 3 {
						x[i] = -float32(math.Exp(6 * r.Float64())) // down to -400
					}
				}
				top := make([]float32, n+1)[1:]
				was := random(r, n, 0)
				copy(top, was)
				set.MaxRows(top, x)
				for i, got := range top {
					want := was[i]
					for j := i; j < len(x); j += n {
						want = max(want, x[j])
					}
					if got != want {
						t.Fatalf("%s: top of column %d of %d rows = %v, want %v", set.Name, i, rows, got, want)
					}
				}
				sum, squares := random(r, n, 1), random(r, n, 2)
				sums, both, y := append([]float32{}, sum...), append([]float32{}, squares...), append([]float32{}, x...)
				set.ExpRows(y, top, sums, both)
				for i := range n {
					wantSum, wantSquares := float64(sum[i]), float64(squares[i])
					for j := i; j < len(x); j += n {
						want := math.Exp(float64(x[j] - top[i]))
						if got := float64(y[j]); math.Abs(got-want) > 3e-7*want && !(want < 5e-18 && got >= 0 && got < 5e-18) {
							t.Fatalf("%s: exp(%v - %v) = %v, want %v", set.Name, x[j], top[i], got, want)
						}
						wantSum += want
						wantSquares += want * want
					}
					if !near(sums[i], wantSum, math.Abs(wantSum)) || !near(both[i], wantSquares, math.Abs(wantSquares)) {
						t.Fatalf("%s: sums of column %d of %d rows = %v, %v, want %v, %v", set.Name, i, rows, sums[i], both[i], wantSum, wantSquares)
					}
				}
			}
		}
	}
}

func TestRowDots(t *testing.T) {
	r := rand.New(rand.NewPCG(35, 36))
	for _, set := range All() {
		for _, d := range []int{16, 32, 64, 128, 144} {
			for _, n := range []int{0, 4, 8, 20} {
				sx := d + r.IntN(3)
				for _, sy := range []int{0, d + 1} {
					x, y, dst := random(r, n*sx, 1), random(r, n*sy+d, 2), make([]float32, n)
					set.RowDots(dst, x[:max((n-1)*sx+d, 0)], sx, y, sy, d)
					for i, got := range dst {
						if want, size := dot64(x[i*sx:i*sx+d], y[i*sy:i*sy+d]); !near(got, want, size) {
							t.Fatalf("%s: row %d of %d, %d apart: %v, want %v", set.Name, i, n, sy, got, want)
						}
					}
				}
			}
		}
	}
}
