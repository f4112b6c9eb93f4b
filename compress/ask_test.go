package compress

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/internal/simd"
)

// Attention by blocks is attention by its definition: outputs, sums of squares, looks, the largest weight of the middle and the lengths
// of values; for any number of queries and keys, with biases, and where each block has larger logits than the one before.
func TestAskIsAttention(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	for _, kn := range simd.All() {
		a := &asker{kernel: kn}
		for _, c := range []struct {
			n, keys, d int
			bias       bool
			rising     float64
		}{{1, 1, 8, false, 0}, {5, 40, 20, true, 0}, {33, 128, 64, false, 0}, {64, 700, 80, true, 0.01}, {64, 513, 128, false, 0.05}} {
			stride := simd.Stride(c.d)
			a.queries = make([]float32, (c.n+3)&^3*stride)
			kv := entries{n: c.keys, dtype: F32, kscale: 1, vscale: 1}
			k, v := make([][]float64, c.keys), make([][]float64, c.keys)
			q := make([][]float64, c.n)
			for i := range q {
				for j := range c.d {
					x := float32(r.NormFloat64())
					a.queries[i*stride+j] = x
					q[i] = append(q[i], float64(x))
				}
			}
			for i := range k {
				for j := range c.d {
					x, y := float32(r.NormFloat64()*0.3), float32(r.NormFloat64())
					if j == 0 {
						x += float32(c.rising * float64(i))
					}
					k[i], v[i] = append(k[i], float64(x)), append(v[i], float64(y))
					kv.k = binary.LittleEndian.AppendUint32(kv.k, math.Float32bits(x))
					kv.v = binary.LittleEndian.AppendUint32(kv.v, math.Float32bits(y))
				}
				if c.bias {
					kv.bias = append(kv.bias, float32(r.Float64()*3))
				}
			}
			weights, want := make([][]float64, c.n), make([][]float64, c.n)
			look, middles, squares := make([]float64, c.keys), make([]float64, c.n), make([]float64, c.n)
			for i := range q {
				logits, top, sum := make([]float64, c.keys), math.Inf(-1), 0.0
				for j := range k {
					logits[j] = inner(q[i], k[j])
					if c.bias {
						logits[j] += float64(kv.bias[j])
					}
					top = max(top, logits[j])
				}
				for _, x := range logits {
					sum += math.Exp(x - top)
				}
				want[i] = make([]float64, c.d)
				for j, x := range logits {
					p := math.Exp(x-top) / sum
					weights[i] = append(weights[i], p)
					if i%3 != 1 {
						look[j] += p
					}
					squares[i] += p * p
					if j >= lookFirst && j < c.keys-lookLast {
						middles[i] = max(middles[i], p)
					}
					for m := range want[i] {
						want[i][m] += p * v[j][m]
					}
				}
			}
			same := func(what string, got float32, want float64) {
				t.Helper()
				if math.Abs(float64(got)-want) > 5e-5*(1+math.Abs(want)) {
					t.Fatalf("%s: %d queries, %d keys of %d: %s %v, want %v", kn.Name, c.n, c.keys, c.d, what, got, want)
				}
			}
			got := make([]float32, c.n*c.d)
			compare := func() {
				t.Helper()
				a.got.outputs(got, c.d)
				for i := range q {
					for j, x := range want[i] {
						same("output", got[i*c.d+j], x)
					}
					same("sum of squares", a.got.squares[i]/a.got.sum[i]/a.got.sum[i], squares[i])
				}
			}
			a.ask(a.queries, c.n, kv, c.d, middle)
			compare()
			a.got.lookups(got)
			for i, x := range middles {
				same("largest weight of the middle", got[i], x)
			}
			a.ask(a.queries, c.n, kv, c.d, allWeights)
			compare()
			for j := range k {
				by := a.got.share(j / askBlock)
				for i := range q {
					same("weight", a.got.weights[j*a.got.lanes+i]*by[i], weights[i][j])
				}
			}
			a.ask(a.queries, c.n, kv, c.d, withLooks)
			compare()
			for j, x := range v {
				same("length of a value", a.got.lengths[j], math.Sqrt(inner(x, x)))
			}
			for range 2 {
				sums := make([]float32, c.keys)
				a.looks(kv, c.d, sums, func(query int) bool { return query%3 != 1 })
				for j, x := range look {
					same("look", sums[j], x)
				}
				a.got.held = 1 // as if the weights were too many to keep
			}
		}
	}
}

func inner(x, y []float64) (sum float64) {
	for i := range x {
		sum += x[i] * y[i]
	}
	return sum
}

// The equations are solved, whatever their number and that of the right sides.
func TestSolve(t *testing.T) {
	r := rand.New(rand.NewPCG(43, 44))
	var s system
	for _, kn := range simd.All() {
		for _, n := range []int{1, 5, 8, 31, 64} {
			const wide, lambda = 32, 0.5
			n8, x := (n+7)&^7, make([][]float64, n)
			ld := n8 + 4
			for i := range x {
				for range 40 {
					x[i] = append(x[i], r.NormFloat64()/6)
				}
			}
			s.matrix = grow(s.matrix, ld*n)
			for i := range n {
				for j := range n {
					s.matrix[i*ld+j] = float32(inner(x[i], x[j]))
				}
			}
			rest := make([]float32, n8*wide)
			for i := range n * wide {
				rest[i] = float32(r.NormFloat64())
			}
			z := append([]float32(nil), rest...)
			if !s.solve(kn, z, n, ld, wide, lambda) {
				t.Fatalf("%s: %d equations are not solved", kn.Name, n)
			}
			for i := range n {
				for c := range wide {
					got := lambda * float64(z[i*wide+c])
					for j := range n {
						got += float64(s.matrix[i*ld+j]) * float64(z[j*wide+c])
					}
					if want := float64(rest[i*wide+c]); math.Abs(got-want) > 1e-4 {
						t.Fatalf("%s: equation %d of %d, column %d: %v, want %v", kn.Name, i, n, c, got, want)
					}
				}
			}
			s.matrix[(n-1)*ld+n-1] = -1
			if s.solve(kn, z, n, ld, wide, lambda) {
				t.Fatalf("%s: a matrix that is not positive was solved", kn.Name)
			}
		}
	}
}
