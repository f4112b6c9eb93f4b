package bits

import "github.com/semproxy/semproxy/internal/simd"

// Decode writes the row that codes stand for into dst, Dim floats: the scale times whole numbers. Up to MaxDim elements the sums of
// levels are whole numbers that a float32 holds, so that floats add up to what whole numbers would.
func (c *Coder) Decode(dst []float32, codes []byte, scale uint16) {
	kernels := simd.Best()
	kernels.Levels(dst, codes, c.top())
	kernels.Hadamard(dst, block(c.Dim))
	kernels.Scale(dst, widenBF16(scale))
}
