package bits

import "math"

// Sizes of codes.
const (
	Four  = 4
	Eight = 8
)

// Valid reports whether rows can be written in b bits an element.
func Valid(b int) bool { return b == Four || b == Eight }

// RowBytes is the size of the codes of a row of dim elements, without the scale. dim must be even.
func RowBytes(dim, b int) int { return dim * b / 8 }

// block is the size of the Hadamard matrix for rows of dim elements: the largest power of two that divides dim. Longer rows
// are rotated block by block.
func block(dim int) int { return dim & -dim }

// MaxDim bounds rows, so that the sums of the inverse fit 16 bits where codes have 4.
const MaxDim = 1024

// Coder has the scratch of one goroutine for rows of Dim elements in Bits bits. The zero value with both set is ready.
type Coder struct {
	Dim, Bits int

	turned []float32
	sums   []int32
	lanes  []uint64
}

// shrink are the shares of the row's largest element that Encode tries as the end of the range: beyond it codes are clipped,
// which may cost less than wide steps.
var shrink = map[int][]float32{Four: {1, 0.95, 0.9, 0.85, 0.8, 0.75}, Eight: {1}}

// Encode writes x, Dim finite floats, as codes, RowBytes(Dim, Bits) long, and returns the row's scale as the bits of a BF16. It
// tries several scales and takes the one with the least squared error. A row of zeros has the scale 0. A row so large that
// its scale is no finite BF16 gives an infinite one.
func (c *Coder) Encode(codes []byte, x []float32) (scale uint16) {
	c.turned = append(c.turned[:0], x...)
	z, size := c.turned, block(c.Dim)
	turn(z, size)
	most := float32(0)
	for _, v := range z {
		most = max(most, v, -v)
	}
	clear(codes)
	switch {
	case most == 0:
		return 0
	case !(most <= math.MaxFloat32): // the sums overflow
		return infinite
	}
	top := float32(int(1)<<c.Bits - 1)
	best := math.Inf(1)
	for _, s := range shrink[c.Bits] {
		// Without the matrix's norm a level is 2 scale size (code - top/2).
		t := roundBF16(most * s / (top * float32(size)))
		if t >= infinite {
			return infinite
		}
		if e := c.loss(z, widenBF16(t)*2*float32(size), top); e < best {
			best, scale = e, t
		}
	}
	if scale == 0 { // smaller than BF16 can say
		return 0
	}
	step := widenBF16(scale) * 2 * float32(size)
	for i, v := range z {
		q := code(v, step, top)
		if c.Bits == Eight {
			codes[i] = q
		} else {
			codes[i/2] |= q << (4 * (i & 1))
		}
	}
	return scale
}

// code is the level nearest to v.
func code(v, step, top float32) byte {
	return byte(min(max(math.RoundToEven(float64(v/step+top/2)), 0), float64(top)))
}

// loss is the squared error of rounding to levels that are step apart.
func (c *Coder) loss(z []float32, step, top float32) float64 {
	if step == 0 {
		return math.MaxFloat64
	}
	sum, inv := 0.0, 1/step
	for _, v := range z {
		u := float32(v*inv) + top/2 // the conversions keep processors from fusing: all choose the same scale
		q := min(max(float32(int32(u+0.5)), 0), top)
		d := float64(u - q)
		sum += float64(d * d)
	}
	return sum * float64(step) * float64(step)
}

// turn multiplies each block by the Hadamard matrix of Sylvester's order, without its norm.
func turn(x []float32, size int) {
	for ; len(x) > 0; x = x[size:] {
		for h := 1; h < size; h *= 2 {
			for i := 0; i < size; i += 2 * h {
				a, b := x[i:i+h], x[i+h:i+2*h]
				for j, u := range a {
					v := b[j]
					a[j], b[j] = u+v, u-v
				}
			}
		}
	}
}

const infinite = 0x7f80

// roundBF16 rounds to the nearest BF16, ties to even.
func roundBF16(f float32) uint16 {
	b := math.Float32bits(f)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func widenBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
