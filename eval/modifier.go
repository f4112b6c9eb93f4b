package eval

import (
	"context"
	"math"
	"time"
)

// noBias leaves proportional attention out.
type noBias struct{ Method }

// Compress implements [Method].
func (m noBias) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	took, err := m.Method.Compress(ctx, c, ratio, out)
	for i := range out.Planes {
		out.Planes[i].Bias = nil
	}
	return took, err
}

// fp8 rounds keys and values to E4M3 with one scale for the keys and one for the values of each head.
type fp8 struct{ Method }

// Compress implements [Method].
func (m fp8) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	took, err := m.Method.Compress(ctx, c, ratio, out)
	for i := range out.Planes {
		quantize(out.Planes[i].K)
		quantize(out.Planes[i].V)
	}
	out.ElementBits, out.Scaled = 8, true
	return took, err
}

// quantize scales x so that its largest element is E4M3's largest, 448, and rounds to its 4 significant bits.
func quantize(x []float32) {
	top := float32(0)
	for _, v := range x {
		top = max(top, v, -v)
	}
	if top == 0 {
		return
	}
	scale := top / 448
	inv := 1 / scale
	for i, v := range x {
		_, e := math.Frexp(float64(v * inv))
		step := math.Ldexp(1, max(e-1, -6)-3) // below 2^-6 the steps no longer shrink
		x[i] = float32(min(max(math.RoundToEven(float64(v*inv)/step)*step, -448), 448)) * scale
	}
}
