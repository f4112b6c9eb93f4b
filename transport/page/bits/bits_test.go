package bits

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func rows(r *rand.Rand, n, dim int) [][]float32 {
	all := make([][]float32, n)
	for i := range all {
		all[i] = make([]float32, dim)
		for d := range all[i] {
			all[i][d] = float32(r.NormFloat64())
		}
	}
	return all
}

// naive is the definition: the matrix's entry is the parity of the indices' common bits.
func naive(codes []byte, dim, b int, scale uint16) []float32 {
	size, out := block(dim), make([]float32, dim)
	level := func(i int) int {
		if b == Eight {
			return 2*int(codes[i]) - 255
		}
		return 2*int(codes[i/2]>>(4*(i%2))&15) - 15
	}
	for i := range out {
		sum, first := 0, i/size*size
		for j := range size {
			sign := 1
			for x := (i % size) & j; x != 0; x &= x - 1 {
				sign = -sign
			}
			sum += sign * level(first+j)
		}
		out[i] = widenBF16(scale) * float32(sum)
	}
	return out
}

var dims = []int{2, 4, 6, 8, 12, 16, 64, 80, 96, 128, 192, 256, 1024}

func TestDecodeIsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, dim := range dims {
		for _, b := range []int{Four, Eight} {
			c := Coder{Dim: dim, Bits: b}
			for trial := range 20 {
				codes, got := make([]byte, RowBytes(dim, b)), make([]float32, dim)
				for i := range codes {
					codes[i] = byte(r.IntN(256))
					if trial < 2 { // the largest sums
						codes[i] = byte(255 * trial)
					}
				}
				scale := roundBF16(r.Float32())
				c.Decode(got, codes, scale)
				for i, want := range naive(codes, dim, b, scale) {
					if got[i] != want {
						t.Fatalf("dim %d, %d bits: element %d: got %v, want %v", dim, b, i, got[i], want)
					}
				}
			}
		}
	}
}

func TestRowsComeBackWithinTheirError(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	// Relative errors of Gaussian rows: an eighth of the bits more halves them.
	for b, most := range map[int]float64{Four: 0.11, Eight: 0.009} {
		for _, dim := range []int{64, 128, 96} {
			c := Coder{Dim: dim, Bits: b}
			lost, all := 0.0, 0.0
			for _, x := range rows(r, 200, dim) {
				codes, got := make([]byte, RowBytes(dim, b)), make([]float32, dim)
				c.Decode(got, codes, c.Encode(codes, x))
				for i, v := range x {
					lost += float64(v-got[i]) * float64(v-got[i])
					all += float64(v) * float64(v)
				}
			}
			if e := math.Sqrt(lost / all); e > most {
				t.Errorf("%d bits, dim %d: relative error %.4f, want at most %v", b, dim, e, most)
			} else {
				t.Logf("%d bits, dim %d: relative error %.4f", b, dim, e)
			}
		}
	}
}

func TestRowsThatAreSpecial(t *testing.T) {
	c := Coder{Dim: 8, Bits: Four}
	codes := make([]byte, 4)
	if s := c.Encode(codes, make([]float32, 8)); s != 0 {
		t.Errorf("a row of zeros: got scale %#x, want 0", s)
	}
	one := []float32{0, 0, 5, 0, 0, 0, 0, 0} // one large element becomes eight alike ones
	got := make([]float32, 8)
	c.Decode(got, codes, c.Encode(codes, one))
	for i, v := range one {
		if math.Abs(float64(got[i]-v)) > 0.05 {
			t.Errorf("one large element: got %v, want %v", got, one)
		}
	}
	big := make([]float32, 8)
	for i := range big {
		big[i] = math.MaxFloat32
	}
	if s := c.Encode(codes, big); s < 0x7f80 {
		t.Errorf("a row that overflows: got scale %#x, want an infinite one", s)
	}
	tiny := []float32{1e-45, 0, 0, 0, 0, 0, 0, 0}
	c.Decode(got, codes, c.Encode(codes, tiny))
	for _, v := range got {
		if math.Abs(float64(v)) > 1e-37 {
			t.Errorf("a tiny row: got %v", got)
		}
	}
}

func TestSineAndCosineAreThose(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200000 {
		a := math.Ldexp(r.Float64(), r.IntN(40)-16)
		sin, cos := sincos(a)
		if math.Abs(sin-math.Sin(a)) > 1e-7 || math.Abs(cos-math.Cos(a)) > 1e-7 {
			t.Fatalf("%v: got %v, %v, want %v, %v", a, sin, cos, math.Sin(a), math.Cos(a))
		}
	}
}

// at is the turns of one position.
func at(c *Carrier, position float32) []Turn {
	turns := make([]Turn, len(c.Frequencies))
	c.Turns(turns, position, false)
	return turns
}

// The mean of keys that rotate is found and taken off whatever their positions, so that what is left is small.
func TestCarrierTakesOffWhatKeysHaveInCommon(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, interleaved := range []bool{false, true} {
		const dim, n = 16, 400
		c := Carrier{Frequencies: []float32{1, 0.3, 0.1, 0.01, 0.001, 0.0001}, Interleaved: interleaved} // four dimensions do not rotate
		base := Carrier{Mean: make([]float32, dim), Frequencies: c.Frequencies, Interleaved: interleaved}
		for d := range base.Mean {
			base.Mean[d] = 20 * float32(r.NormFloat64())
		}
		keys := rows(r, n, dim)
		positions, turned := make([]float32, n), make([]float32, dim)
		for i, k := range keys {
			positions[i] = float32(r.IntN(4000)) + 0.5
			base.Rotate(turned, at(&base, positions[i]))
			for d := range k {
				k[d] += turned[d]
			}
		}
		if !c.Fit(dim, n, func(i int) ([]float32, []Turn) { return keys[i], at(&c, positions[i]) }) {
			t.Fatal("found nothing in common")
		}
		left := 0.0
		for i, k := range keys {
			some := make([]Turn, len(c.Frequencies))
			c.Turns(some, positions[i], true)
			c.Rotate(turned, some)
			for d, v := range k {
				left += float64(v-turned[d]) * float64(v-turned[d]) / n / dim
			}
		}
		if left > 1.1 {
			t.Errorf("interleaved %v: left %.2f of variance, want the noise's 1", interleaved, left)
		}
	}
	c := Carrier{Frequencies: []float32{1, 0.1}}
	keys := rows(r, 500, 8)
	if c.Fit(8, 500, func(i int) ([]float32, []Turn) { return keys[i], at(&c, float32(i)) }) {
		t.Errorf("keys around zero: got the mean %v, want none", c.Mean)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, dim := range []int{64, 128} {
		for _, bit := range []int{Four, Eight} {
			b.Run(fmt.Sprintf("dim %d, %d bits", dim, bit), func(b *testing.B) {
				c := Coder{Dim: dim, Bits: bit}
				codes, out := make([]byte, RowBytes(dim, bit)), make([]float32, dim)
				b.SetBytes(int64(2 * dim)) // of what an engine reads
				for b.Loop() {
					c.Decode(out, codes, 0x3f80)
				}
			})
		}
	}
}
