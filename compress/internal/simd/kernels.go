package simd

// Kernels is one set of inner loops. All sets compute the same within the rounding of float32: sums are taken in another
// order and, in assembly, with fused multiply-add.
type Kernels struct {
	Name string // "go", "avx2", "avx512"

	// Gram adds to s[i*ld+j] the dot product of rows i and j of u, for j >= i. Rows are stride floats long. The matrix is
	// ld wide, a multiple of 4 and at least n rounded up to 4; s and u have that many rows, of which those past n may hold
	// anything. Entries below the diagonal and past n are unspecified.
	Gram func(s []float32, ld int, u []float32, n, stride int)
	// Dots adds to s[r*ld+j] the dot product of rows r of a and j of b; na and nb are multiples of 4.
	Dots func(s []float32, ld int, a, b []float32, na, nb, stride int)
	// Dot is the dot product of a and b, whose length is a multiple of Pad.
	Dot func(a, b []float32) float32
	// Axpy adds w*src to dst. The length is a multiple of Pad.
	Axpy func(dst, src []float32, w float32)
	// Scale multiplies x by w. The length is a multiple of Pad.
	Scale func(x []float32, w float32)
	// Unrotate turns each pair (lo, hi) back by the angle whose cosine and sine are given.
	Unrotate func(lo, hi, cos, sin []float32)
	// WidenBF16 and WidenF16 convert len(dst) little-endian elements.
	WidenBF16, WidenF16 func(dst []float32, src []byte)
}

// Generic is plain Go.
func Generic() *Kernels { return &generic }

// Best is the fastest set that this processor runs, chosen once.
func Best() *Kernels { return best }

// All lists every set that this processor runs, plain Go first.
func All() []*Kernels { return all }

var best = all[len(all)-1]
