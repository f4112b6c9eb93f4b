package bits

import "math"

// Carrier is what the keys of a head have in common: a mean that is rotated to each key's position, as RoPE does. Where
// Frequencies is empty nothing rotates.
type Carrier struct {
	Mean        []float32 // one for each dimension, each a BF16
	Frequencies []float32 // of each pair of rotating dimensions, in radians per position
	Interleaved bool      // pairs are (0,1), (2,3) ...; else (0, n), (1, n+1) ... for n pairs
}

// pair is the two dimensions of pair i.
func (c *Carrier) pair(i int) (a, b int) {
	if c.Interleaved {
		return 2 * i, 2*i + 1
	}
	return i, i + len(c.Frequencies)
}

// Turn is by how much a position rotates a pair.
type Turn struct{ Sin, Cos float64 }

// Turns writes those of a position into dst, one for each frequency. Where used is set, pairs without a mean are passed over:
// Rotate does not look at them.
func (c *Carrier) Turns(dst []Turn, position float32, used bool) {
	for i, f := range c.Frequencies {
		if a, b := c.pair(i); used && c.Mean[a] == 0 && c.Mean[b] == 0 {
			continue
		}
		dst[i].Sin, dst[i].Cos = sincos(float64(position) * float64(f))
	}
}

// Rotate writes the mean as it is at the position of the turns into dst.
func (c *Carrier) Rotate(dst []float32, turns []Turn) {
	copy(dst, c.Mean)
	for i, t := range turns {
		a, b := c.pair(i)
		x, y := float64(c.Mean[a]), float64(c.Mean[b])
		if x == 0 && y == 0 {
			continue
		}
		// The products of two floats are exact in 64 bits, so that the sums are the same with and without fused operations.
		dst[a], dst[b] = float32(x*t.Cos-y*t.Sin), float32(y*t.Cos+x*t.Sin)
	}
}

// unrotate adds x, a key at the position of the turns, to sum as it would be at position 0.
func (c *Carrier) unrotate(sum []float64, x []float32, turns []Turn) {
	for i, t := range turns {
		a, b := c.pair(i)
		u, v := float64(x[a]), float64(x[b])
		sum[a] += u*t.Cos + v*t.Sin
		sum[b] += v*t.Cos - u*t.Sin
	}
	for i := 2 * len(turns); i < len(x); i++ {
		sum[i] += float64(x[i])
	}
}

// Fit sets Mean to that of n rows, given by row with the turns of their positions, and drops of it what is too small to matter: pairs,
// and dimensions that do not rotate, where the mean has less than a tenth of the energy that the row's dimensions have on
// average around it. It reports whether anything is left.
func (c *Carrier) Fit(dim, n int, row func(i int) (x []float32, turns []Turn)) bool {
	sum, energy := make([]float64, dim), 0.0
	for i := range n {
		x, turns := row(i)
		c.unrotate(sum, x, turns)
		for _, v := range x {
			energy += float64(v) * float64(v)
		}
	}
	energy /= float64(n)
	for i := range sum {
		sum[i] /= float64(n)
		energy -= float64(sum[i] * sum[i])
	}
	least := max(energy, 0) / float64(dim) / 10
	c.Mean = append(c.Mean[:0], make([]float32, dim)...)
	kept := false
	keep := func(dims ...int) {
		e := 0.0
		for _, d := range dims {
			e += float64(sum[d] * sum[d])
		}
		if !(e > least*float64(len(dims))) {
			return
		}
		for _, d := range dims {
			c.Mean[d] = widenBF16(roundBF16(float32(sum[d])))
		}
		kept = true
	}
	for i := range c.Frequencies {
		keep(c.pair(i))
	}
	for d := 2 * len(c.Frequencies); d < dim; d++ {
		keep(d)
	}
	return kept
}

// Two parts of a quarter turn, pi/2, the first short enough that its products with small whole numbers are exact, and
// 2/pi.
const (
	quarterHigh = 0x1.921fb544p+0
	quarterLow  = 0x1.0b4611a626331p-34
	quarters    = 0x1.45f306dc9c883p-1
)

// sincos is the sine and the cosine of an angle of at least 0, each rounded to 32 bits. Its steps are defined to the bit: every
// product and every sum is rounded to 64 bits, none is fused, and the series are Taylor's, to the 13th and 12th power.
func sincos(a float64) (sin, cos float64) {
	n := math.Floor(float64(a*quarters) + 0.5)
	r := float64(a-float64(n*quarterHigh)) - float64(n*quarterLow)
	z := float64(r * r)
	s := float64(1.0 / 6227020800)
	for _, k := range [...]float64{-1.0 / 39916800, 1.0 / 362880, -1.0 / 5040, 1.0 / 120, -1.0 / 6} {
		s = float64(s*z) + k
	}
	s = r + float64(float64(r*z)*s)
	c := float64(1.0 / 479001600)
	for _, k := range [...]float64{-1.0 / 3628800, 1.0 / 40320, -1.0 / 720, 1.0 / 24, -0.5, 1} {
		c = float64(c*z) + k
	}
	s, c = float64(float32(s)), float64(float32(c))
	switch int64(n) & 3 {
	case 1:
		return c, -s
	case 2:
		return -s, -c
	case 3:
		return -c, s
	}
	return s, c
}
