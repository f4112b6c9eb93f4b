package compress

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/internal/simd"
)

// askedPage is what queries ask, in float32 and in float64, and what they get by the definition of attention.
type askedPage struct {
	queries []float32 // [queries rounded up to 4, stride]
	kv      entries

	q, k, v [][]float64
	weights [][]float64 // [queries, keys]
	outputs [][]float64 // [queries, dim]
	squares []float64   // [queries], of the weights
	middles []float64   // [queries], the largest weight of the middle
	looks   []float64   // [keys], weights of the queries that count
}

// counted says which queries count for looks.
func counted(query int) bool { return query%3 != 1 }

// newAskedPage makes n queries and as many keys of d dimensions, whose logits rise by rising from key to key.
func newAskedPage(r *rand.Rand, n, keys, d int, bias bool, rising float64) *askedPage {
	stride := simd.Stride(d)
	p := &askedPage{queries: make([]float32, (n+3)&^3*stride), kv: entries{n: keys, dtype: F32, kscale: 1, vscale: 1},
		q: make([][]float64, n), k: make([][]float64, keys), v: make([][]float64, keys)}
	for i := range p.q {
		for j := range d {
			x := float32(r.NormFloat64())
			p.queries[i*stride+j] = x
			p.q[i] = append(p.q[i], float64(x))
		}
	}
	for i := range p.k {
		for j := range d {
			x, y := float32(r.NormFloat64()*0.3), float32(r.NormFloat64())
			if j == 0 {
				x += float32(rising * float64(i))
			}
			p.k[i], p.v[i] = append(p.k[i], float64(x)), append(p.v[i], float64(y))
			p.kv.k = binary.LittleEndian.AppendUint32(p.kv.k, math.Float32bits(x))
			p.kv.v = binary.LittleEndian.AppendUint32(p.kv.v, math.Float32bits(y))
		}
		if bias {
			p.kv.bias = append(p.kv.bias, float32(r.Float64()*3))
		}
	}
	p.attend()
	return p
}

// attend is attention by its definition.
func (p *askedPage) attend() {
	n, keys, d := len(p.q), len(p.k), len(p.q[0])
	p.weights, p.outputs = make([][]float64, n), make([][]float64, n)
	p.looks, p.middles, p.squares = make([]float64, keys), make([]float64, n), make([]float64, n)
	for i := range p.q {
		logits, top, sum := make([]float64, keys), math.Inf(-1), 0.0
		for j := range p.k {
			logits[j] = inner(p.q[i], p.k[j])
			if p.kv.bias != nil {
				logits[j] += float64(p.kv.bias[j])
			}
			top = max(top, logits[j])
		}
		for _, x := range logits {
			sum += math.Exp(x - top)
		}
		p.outputs[i] = make([]float64, d)
		for j, x := range logits {
			weight := math.Exp(x-top) / sum
			p.weights[i] = append(p.weights[i], weight)
			if counted(i) {
				p.looks[j] += weight
			}
			p.squares[i] += weight * weight
			if j >= lookFirst && j < keys-lookLast {
				p.middles[i] = max(p.middles[i], weight)
			}
			for m := range d {
				p.outputs[i][m] += weight * p.v[j][m]
			}
		}
	}
}

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
			p := newAskedPage(r, c.n, c.keys, c.d, c.bias, c.rising)
			same := func(what string, got float32, want float64) {
				t.Helper()
				if math.Abs(float64(got)-want) > 5e-5*(1+math.Abs(want)) {
					t.Fatalf("%s: %d queries, %d keys of %d: %s %v, want %v", kn.Name, c.n, c.keys, c.d, what, got, want)
				}
			}
			ask := func(what asking) *answers {
				t.Helper()
				got, out := a.ask(p.queries, c.n, p.kv, c.d, what), make([]float32, c.n*c.d)
				got.outputs(out, c.d)
				for i := range p.q {
					for j, x := range p.outputs[i] {
						same("output", out[i*c.d+j], x)
					}
					same("sum of squares", got.squares[i]/got.sum[i]/got.sum[i], p.squares[i])
				}
				return got
			}
			largest := make([]float32, c.n)
			ask(middle).lookups(largest)
			for i, x := range p.middles {
				same("largest weight of the middle", largest[i], x)
			}
			got := ask(allWeights)
			for j := range p.k {
				by := got.share(j / askBlock)
				for i := range p.q {
					same("weight", got.weights[j*got.lanes+i]*by[i], p.weights[i][j])
				}
			}
			got = ask(withLooks)
			for j, x := range p.v {
				same("length of a value", got.lengths[j], math.Sqrt(inner(x, x)))
			}
			for range 2 {
				sums := make([]float32, c.keys)
				a.looks(p.kv, c.d, sums, counted)
				for j, x := range p.looks {
					same("look", sums[j], x)
				}
				got.held = 1 // as if the weights were too many to keep
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
