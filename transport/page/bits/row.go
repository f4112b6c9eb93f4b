package bits

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

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
}

// shrink are the shares of the row's largest element that Encode tries as the end of the range: beyond it codes are clipped,
// which may cost less than wide steps.
var shrink = map[int][]float32{Four: {1, 0.95, 0.9, 0.85, 0.8, 0.75}, Eight: {1}}

// top is the largest code.
func (c *Coder) top() float32 { return float32(int(1)<<c.Bits - 1) }

// Encode writes x, Dim finite floats, as codes, RowBytes(Dim, Bits) long, and returns the row's scale as the bits of a BF16. It
// tries several scales and takes the one with the least squared error. A row of zeros has the scale 0. A row so large that
// its scale is no finite BF16 gives an infinite one. Every machine writes the same.
func (c *Coder) Encode(codes []byte, x []float32) (scale uint16) {
	kernels := simd.Best()
	c.turned = append(c.turned[:0], x...)
	z, size := c.turned, block(c.Dim)
	kernels.Hadamard(z, size)
	if !finite(kernels, x, z, size) {
		clear(codes)
		return infinite
	}
	most := kernels.MaxAbs(z)
	if most == 0 {
		clear(codes)
		return 0
	}
	top := c.top()
	best := math.Inf(1)
	for _, s := range shrink[c.Bits] {
		// Without the matrix's norm a level is 2 scale size (code - top/2).
		t := roundBF16(most * s / (top * float32(size)))
		if t >= infinite {
			clear(codes)
			return infinite
		}
		step, e := widenBF16(t)*2*float32(size), math.MaxFloat64
		if inv := 1 / step; inv <= math.MaxFloat32 {
			e = float64(kernels.RoundLoss(z, inv, top)) * float64(step) * float64(step)
		}
		if e < best {
			best, scale = e, t
		}
	}
	if scale == 0 { // smaller than BF16 can say
		clear(codes)
		return 0
	}
	kernels.RoundCodes(codes, z, widenBF16(scale)*2*float32(size), top)
	return scale
}

// finite reports whether no sum of x overflowed in z, its product with the matrix.
func finite(kernels *simd.Kernels, x, z []float32, size int) bool {
	if kernels.MaxAbs(x) <= math.MaxFloat32/float32(size) {
		return true
	}
	for _, v := range z {
		if !(max(v, -v) <= math.MaxFloat32) {
			return false
		}
	}
	return true
}

const infinite = 0x7f80

// roundBF16 rounds to the nearest BF16, ties to even.
func roundBF16(f float32) uint16 {
	b := math.Float32bits(f)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func widenBF16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
