package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// system is a symmetric system of equations.
type system struct {
	matrix []float32 // rows of ld; the upper half is read
	lower  []float64 // its factor
	minus  []float32 // the same, negative, without the diagonal; rows of as many as n rounded up
}

// solve replaces rest, [n rounded up to 8, ld of wide], the rows behind n being zero, by the solution of (s.matrix + lambda I) z =
// rest. It reports false when the matrix is not positive: then rest is unspecified. lambda keeps the system far from singular, so
// that float32 does for the rows. wide is a multiple of simd.Lanes.
func (s *system) solve(kn *simd.Kernels, rest []float32, n, ld, wide int, lambda float64) bool {
	const tile = simd.MulRows
	n8 := (n + tile - 1) &^ (tile - 1)
	if !s.factor(n, ld, n8, lambda) {
		return false
	}
	row := func(i int) []float32 { return rest[i*wide : i*wide+wide] }
	for at := 0; at < n8; at += tile {
		kn.MulAdd(rest[at*wide:], wide, s.minus[at*n8:], n8, 1, rest, wide, tile, at, wide)
		for i := at; i < min(at+tile, n); i++ {
			for j := at; j < i; j++ {
				kn.Axpy(row(i), row(j), s.minus[i*n8+j])
			}
			kn.Scale(row(i), float32(1/s.lower[i*n+i]))
		}
	}
	for at := n8 - tile; at >= 0; at -= tile {
		if next := at + tile; next < n8 {
			kn.MulAdd(rest[at*wide:], wide, s.minus[next*n8+at:], 1, n8, rest[next*wide:], wide, tile, n8-next, wide)
		}
		for i := min(at+tile, n) - 1; i >= at; i-- {
			for j := i + 1; j < min(at+tile, n); j++ {
				kn.Axpy(row(i), row(j), s.minus[j*n8+i])
			}
			kn.Scale(row(i), float32(1/s.lower[i*n+i]))
		}
	}
	return true
}

// factor finds L of s.matrix + lambda I = L L^T, row by row.
func (s *system) factor(n, ld, n8 int, lambda float64) bool {
	s.lower, s.minus = grow(s.lower, n*n), grow(s.minus, n8*n8)
	clear(s.minus)
	for i := range n {
		of := s.lower[i*n : i*n+n]
		for j := range i {
			row := s.lower[j*n : j*n+n]
			of[j] = (float64(s.matrix[j*ld+i]) - dot64(of[:j], row[:j])) / row[j]
			s.minus[i*n8+j] = -float32(of[j])
		}
		sum := float64(s.matrix[i*ld+i]) + lambda - dot64(of[:i], of[:i])
		if !(sum > 0) || math.IsInf(sum, 1) {
			return false
		}
		of[i] = math.Sqrt(sum)
	}
	return true
}

// dot64 keeps four sums, so that no addition waits for the one before.
func dot64(x, y []float64) float64 {
	var a, b, c, d float64
	y = y[:len(x)]
	i := 0
	for ; i+4 <= len(x); i += 4 {
		a += x[i] * y[i]
		b += x[i+1] * y[i+1]
		c += x[i+2] * y[i+2]
		d += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		a += x[i] * y[i]
	}
	return (a + b) + (c + d)
}
