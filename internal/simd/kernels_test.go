package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Every set is held against sums in float64, for every length and with rows that start at odd addresses.
const tolerance = 1e-5

func random(r *rand.Rand, n, offset int) []float32 {
	x := make([]float32, n+offset)[offset:]
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func near(got float32, want, size float64) bool {
	return math.Abs(float64(got)-want) <= tolerance*(1+size)
}

func dot64(a, b []float32) (sum, size float64) {
	for i, x := range a {
		p := float64(x) * float64(b[i])
		sum += p
		size += math.Abs(p)
	}
	return sum, size
}

func TestGramAndDots(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range All() {
		for n := 1; n <= 101; n += 1 + n/20 {
			for _, d := range []int{16, 48, 64, 128, 256} {
				n4 := (n + 3) &^ 3
				ld := n4 + 4*(n%3)
				u := random(r, n4*d, n%7)
				s := make([]float32, n4*ld+3)[3:]
				before := float32(2)
				for i := range s {
					s[i] = before
				}
				k.Gram(s, ld, u, n, d)
				for i := range n {
					for j := i; j < n; j++ {
						want, size := dot64(u[i*d:(i+1)*d], u[j*d:(j+1)*d])
						if got := s[i*ld+j]; !near(got, want+float64(before), size) {
							t.Fatalf("%s: gram n=%d d=%d [%d,%d] = %v, want %v", k.Name, n, d, i, j, got, want)
						}
					}
				}
				na, nb := 4*(1+n%3), n4
				a, out := random(r, na*d, 1), make([]float32, na*ld)
				k.Dots(out, ld, a, u, na, nb, d)
				for i := range na {
					for j := range ld {
						want, size := 0.0, 0.0
						if j < nb {
							want, size = dot64(a[i*d:(i+1)*d], u[j*d:(j+1)*d])
						}
						if !near(out[i*ld+j], want, size) {
							t.Fatalf("%s: dots na=%d nb=%d d=%d [%d,%d] = %v, want %v", k.Name, na, nb, d, i, j, out[i*ld+j], want)
						}
					}
				}
			}
		}
	}
}

func TestDotsOf(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	for _, k := range All() {
		for _, d := range []int{16, 64, 80, 128, 256} {
			for n := 4; n <= 64; n += 4 {
				rows, q, dst, index := random(r, n*d, 3), random(r, d, 1), make([]float32, n), make([]uint16, n)
				for i := range index {
					index[i] = uint16(r.IntN(n))
				}
				k.DotsOf(dst, q, rows, index, d)
				for i, j := range index {
					want, size := dot64(q, rows[int(j)*d:(int(j)+1)*d])
					if !near(dst[i], want, size) {
						t.Fatalf("%s: %d of %d rows of %d: %v, want %v", k.Name, i, n, d, dst[i], want)
					}
				}
			}
		}
	}
}

func TestVectors(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range All() {
		for n := range 140 {
			a, b := random(r, n, n%5), random(r, n, n%3)
			want, size := dot64(a, b)
			if got := k.Dot(a, b); !near(got, want, size) {
				t.Fatalf("%s: dot of %d = %v, want %v", k.Name, n, got, want)
			}
			c := append([]float32{}, a...)
			k.Axpy(c, b, 0.37)
			for i := range c {
				if !near(c[i], float64(a[i])+float64(float32(0.37))*float64(b[i]), 2) {
					t.Fatalf("%s: axpy of %d [%d] = %v", k.Name, n, i, c[i])
				}
			}
			c = append(c[:0], a...)
			k.Scale(c, -2)
			for i := range c {
				if c[i] != -2*a[i] {
					t.Fatalf("%s: scale of %d [%d] = %v, want %v", k.Name, n, i, c[i], -2*a[i])
				}
			}
			rows, weights := random(r, 4*(n+5), 1), [4]float32{0.5, -1, 2, 0.25}
			c = append(c[:0], a...)
			k.Axpy4(c, rows, n+5, &weights)
			for i := range c {
				want := float64(a[i])
				for j, w := range weights {
					want += float64(w) * float64(rows[j*(n+5)+i])
				}
				if !near(c[i], want, 8) {
					t.Fatalf("%s: axpy4 of %d [%d] = %v, want %v", k.Name, n, i, c[i], want)
				}
			}
			sum, x := append([]float32{}, b...), append([]float32{}, a...)
			x = append(append(x, 77), a...)
			k.ScaleAdd(x, n+1, sum, []float32{0.5, 2})
			for i := range sum {
				if x[i] != a[i]*0.5 || x[n] != 77 || x[n+1+i] != a[i]*2 || !near(sum[i], float64(b[i])+float64(a[i])*2.5, 4) {
					t.Fatalf("%s: scaleAdd of %d [%d] = %v, %v", k.Name, n, i, x, sum[i])
				}
			}
			x, sum = append(x[:0], a...), append(sum[:0], b...)
			k.Axpy2(x, sum, b, 3, 1)
			for i := range x {
				if !near(x[i], float64(a[i])+3*float64(b[i]), 4) || sum[i] != b[i]+b[i] {
					t.Fatalf("%s: axpy2 of %d [%d] = %v, %v", k.Name, n, i, x[i], sum[i])
				}
			}
			turned, other := append([]float32{}, a...), append([]float32{}, b...)
			angle, freq := random(r, n, 1), random(r, n, 2)
			tc, ts := make([]float32, n), make([]float32, n)
			for i := range angle {
				freq[i] = float32(1 / (1 + math.Abs(float64(freq[i]))))
				s, c := math.Sincos(float64(angle[i]))
				tc[i], ts[i] = float32(c), float32(s)
			}
			k.RotateBy(turned, other, tc, ts, freq, -0.43, 1.5)
			for i := range turned {
				s, c := math.Sincos(float64(angle[i]) - 0.43*float64(freq[i]))
				u, v := float64(a[i]), float64(b[i])
				if !near(turned[i], 1.5*(u*c-v*s), 8) || !near(other[i], 1.5*(v*c+u*s), 8) {
					t.Fatalf("%s: rotateBy of %d [%d] = %v, %v, want %v, %v", k.Name, n, i, turned[i], other[i], 1.5*(u*c-v*s), 1.5*(v*c+u*s))
				}
			}
			lo, hi := append([]float32{}, a...), append([]float32{}, b...)
			cos, sin := random(r, n, 0), random(r, n, 1)
			k.Unrotate(lo, hi, cos, sin)
			for i := range lo {
				u, v, c, s := float64(a[i]), float64(b[i]), float64(cos[i]), float64(sin[i])
				if !near(lo[i], u*c+v*s, 4) || !near(hi[i], v*c-u*s, 4) {
					t.Fatalf("%s: unrotate of %d [%d] = %v, %v", k.Name, n, i, lo[i], hi[i])
				}
			}
		}
	}
}

// Widening is exact for every one of the 65,536 codes: zeros, subnormals, infinities and NaN included.
func TestWidenEveryCode(t *testing.T) {
	src := make([]byte, 2*65536+1)[1:]
	for i := range 65536 {
		src[2*i], src[2*i+1] = byte(i), byte(i>>8)
	}
	bf, f16 := make([]float32, 65536), make([]float32, 65536)
	for _, k := range All() {
		k.BF16.Widen(bf, src)
		k.F16.Widen(f16, src)
		for i := range 65536 {
			if got, want := math.Float32bits(bf[i]), uint32(i)<<16; got != want {
				t.Fatalf("%s: bf16 %#04x = %#08x, want %#08x", k.Name, i, got, want)
			}
			want := halfValue(uint16(i))
			if got := f16[i]; got != want && !(got != got && want != want) || math.Signbit(float64(got)) != math.Signbit(float64(want)) {
				t.Fatalf("%s: f16 %#04x = %v, want %v", k.Name, i, got, want)
			}
		}
	}
}

// halfValue widens by the definition.
func halfValue(h uint16) float32 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	e, m := int(h>>10&31), float64(h&0x3ff)
	switch {
	case e == 31 && m == 0:
		return float32(math.Inf(int(sign)))
	case e == 31:
		return float32(math.Copysign(math.NaN(), sign))
	case e == 0:
		return float32(math.Copysign(math.Ldexp(m, -24), sign))
	}
	return float32(sign * math.Ldexp(1024+m, e-25))
}

// Narrowing what was widened gives every finite code back; between two codes it rounds to the nearer, at a tie to the even
// one, and beyond the largest finite value it saturates.
func TestNarrow(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, k := range All() {
		for name, h := range map[string]struct {
			Half
			largest uint16
			ulp     func(uint16) (float32, float32)
		}{
			"bf16": {k.BF16, 0x7f7f, func(c uint16) (float32, float32) { return bf16to32(c), bf16to32(c + 1) }},
			"f16":  {k.F16, 0x7bff, func(c uint16) (float32, float32) { return halfValue(c), halfValue(c + 1) }},
		} {
			for range 200 {
				n := r.IntN(40)
				src, want, dst := make([]float32, n), make([]uint16, n), make([]byte, 2*n)
				for i := range src {
					c := uint16(r.IntN(int(h.largest)))
					lo, hi := h.ulp(c)
					mid := lo + (hi-lo)/2
					switch r.IntN(5) {
					case 0:
						src[i], want[i] = lo, c
					case 1:
						src[i], want[i] = math.Nextafter32(mid, lo), c
					case 2:
						src[i], want[i] = math.Nextafter32(mid, hi), c+1
					case 3:
						src[i], want[i] = mid, (c+1)&^1
					default:
						src[i], want[i] = []float32{math.MaxFloat32, float32(math.Inf(1))}[r.IntN(2)], h.largest
					}
					if lo != 0 && math.Nextafter32(mid, lo) == lo { // too few bits between two subnormals
						src[i], want[i] = lo, c
					}
					if r.IntN(2) == 0 {
						src[i], want[i] = -src[i], want[i]|0x8000
					}
				}
				h.Narrow(dst, src)
				for i := range src {
					if got := uint16(dst[2*i]) | uint16(dst[2*i+1])<<8; got != want[i] {
						t.Fatalf("%s: %s of %v (%d of %d) = %#04x, want %#04x", k.Name, name, src[i], i, n, got, want[i])
					}
				}
			}
		}
	}
}

func TestUnrotateAndAxpyOfHalves(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, k := range All() {
		for name, h := range map[string]Half{"bf16": k.BF16, "f16": k.F16} {
			for n := range 70 {
				src := make([]byte, 4*n+1)[1:]
				for i := range 2 * n {
					src[2*i], src[2*i+1] = byte(r.IntN(256)), byte(0x3c+r.IntN(4))
				}
				x := make([]float32, 2*n)
				h.Widen(x, src)
				cos, sin, got := random(r, n, 1), random(r, n, 0), make([]float32, 2*n)
				angles := Angles{Cos: append(random(r, n, 0), cos...), Sin: append(random(r, n, 1), sin...), Half: n}
				squares, at := []float32{0, 0}, []int32{1, 1}
				twice, rows := append(slices.Clone(src), src...), make([]float32, 4*n+3)
				h.Unrotate(rows, 2*n+3, squares, twice, angles, at)
				copy(got, rows)
				ss := squares[0]
				if squares[1] != ss || !slices.Equal(rows[2*n+3:], got) {
					t.Fatalf("%s: %s unrotate of %d: two equal rows differ", k.Name, name, n)
				}
				want := 0.0
				for i := range n {
					u, v, c, s := float64(x[i]), float64(x[n+i]), float64(cos[i]), float64(sin[i])
					a, b := u*c+v*s, v*c-u*s
					want += a*a + b*b
					if !near(got[i], a, math.Abs(a)+4) || !near(got[n+i], b, math.Abs(b)+4) {
						t.Fatalf("%s: %s unrotate of %d [%d] = %v, %v, want %v, %v", k.Name, name, n, i, got[i], got[n+i], a, b)
					}
				}
				if !near(ss, want, want) {
					t.Fatalf("%s: %s sum of squares of %d = %v, want %v", k.Name, name, n, ss, want)
				}
				direction, key, unit := random(r, 2*n, 0), random(r, 2*n, 1), random(r, 2*n, 0)
				along, size := dot64(got, direction)
				h.UnrotateDot(squares, direction, twice, angles, at)
				if !near(squares[0], along, size+1) || squares[1] != squares[0] {
					t.Fatalf("%s: %s dot with an unrotated row of %d = %v, want %v", k.Name, name, n, squares, along)
				}
				keyWas, unitWas := slices.Clone(key), slices.Clone(unit)
				h.UnrotateAdd(key, unit, src, cos, sin, 0.25, 3)
				for i, x := range got {
					a, b := float64(keyWas[i])+0.25*float64(x), float64(unitWas[i])+3*float64(x)
					if size := 4 * (math.Abs(float64(x)) + 4); !near(key[i], a, size) || !near(unit[i], b, size) {
						t.Fatalf("%s: %s sums with an unrotated row of %d [%d] = %v, %v, want %v, %v", k.Name, name, n, i, key[i], unit[i], a, b)
					}
				}
				y := make([]float32, 2*n)
				h.Axpy(y, src, 2)
				for i := range y {
					if y[i] != 2*x[i] {
						t.Fatalf("%s: %s axpy of %d [%d] = %v, want %v", k.Name, name, 2*n, i, y[i], 2*x[i])
					}
				}
			}
		}
	}
}

func TestFP8(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	// Every code decodes to a value that encodes to it, and what lies between two codes goes to the nearer.
	value := func(c int) float64 {
		e, m := c>>3, float64(c&7)
		if e == 0 {
			return math.Ldexp(m, -9)
		}
		return math.Ldexp(8+m, e-10)
	}
	for _, k := range All() {
		for range 200 {
			n := r.IntN(40)
			src, want, dst := make([]float32, n), make([]byte, n), make([]byte, n)
			for i := range src {
				c := r.IntN(0x7e)
				lo, hi := value(c), value(c+1)
				switch x := r.Float64(); r.IntN(4) {
				case 0:
					src[i], want[i] = float32(lo), byte(c)
				case 1:
					src[i], want[i] = float32((lo+hi)/2), byte((c+1)&^1)
				case 2:
					src[i], want[i] = 1e9, 0x7e
				default:
					src[i], want[i] = float32(lo+(hi-lo)*x), byte(c)
					if float64(src[i])-lo > hi-float64(src[i]) {
						want[i]++
					}
				}
				if r.IntN(2) == 0 {
					src[i], want[i] = -src[i], want[i]|0x80
				}
				src[i] *= 4
			}
			k.NarrowE4M3(dst, src, 0.25)
			for i := range src {
				if dst[i] != want[i] {
					t.Fatalf("%s: e4m3 of %v (%d of %d) = %#02x, want %#02x", k.Name, src[i]/4, i, n, dst[i], want[i])
				}
			}
			most := float32(0)
			for _, x := range src {
				most = max(most, float32(math.Abs(float64(x))))
			}
			if got := k.MaxAbs(src); got != most {
				t.Fatalf("%s: maxAbs of %d = %v, want %v", k.Name, n, got, most)
			}
		}
	}
}

func BenchmarkMulAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	const m, k, n = 128, 128, 64
	x, y, s := random(r, m*k, 0), random(r, k*n, 0), make([]float32, m*n)
	for _, set := range All() {
		b.Run(set.Name, func(b *testing.B) {
			for b.Loop() {
				set.MulAdd(s, n, x, k, 1, y, n, m, k, n)
			}
			b.ReportMetric(float64(2*m*n*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

func BenchmarkExpRows(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	x, top, sum, squares := random(r, 128*64, 0), make([]float32, 64), make([]float32, 64), make([]float32, 64)
	for _, k := range All() {
		b.Run(k.Name, func(b *testing.B) {
			for b.Loop() {
				k.ExpRows(x, top, sum, squares)
				for i := range x {
					x[i]--
				}
			}
			b.ReportMetric(128*64*float64(b.N)/b.Elapsed().Seconds()/1e9, "G/s")
		})
	}
}

func BenchmarkGram(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	const n, d = 64, 128
	u, s := random(r, n*d, 0), make([]float32, n*n)
	for _, k := range All() {
		b.Run(k.Name, func(b *testing.B) {
			for b.Loop() {
				k.Gram(s, n, u, n, d)
			}
			b.ReportMetric(float64(n*(n+4)/2*2*d)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
