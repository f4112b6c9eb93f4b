package simd

// Kernels is one set of inner loops. All sets compute the same within the rounding of float32: sums are taken in another
// order and, in assembly, with fused multiply-add.
type Kernels struct {
	Name string // "go", "avx2", "avx512", "neon"

	// Gram adds to s[i*ld+j] the dot product of rows i and j of u, for j >= i. Rows are stride floats long. The matrix is
	// ld wide, a multiple of 4 and at least n rounded up to 4; s and u have that many rows, of which those past n may hold
	// anything. Entries below the diagonal and past n are unspecified.
	Gram func(s []float32, ld int, u []float32, n, stride int)
	// Dots adds to s[r*ld+j] the dot product of rows r of a and j of b; na and nb are multiples of 4.
	Dots func(s []float32, ld int, a, b []float32, na, nb, stride int)
	// DotsOf writes to dst the dot products of q and the rows that index names. Rows are stride floats long. The lengths of
	// dst and index are equal and a multiple of 4.
	DotsOf func(dst, q, rows []float32, index []uint16, stride int)
	// Dot is the dot product of a and b, whose length is a multiple of Pad.
	Dot func(a, b []float32) float32
	// Axpy adds w*src to dst. The length is a multiple of Pad.
	Axpy func(dst, src []float32, w float32)
	// Axpy4 adds to dst four rows of len(dst) floats, stride apart, each times its weight.
	Axpy4 func(dst, rows []float32, stride int, w *[4]float32)
	// Scale multiplies x by w. The length is a multiple of Pad.
	Scale func(x []float32, w float32)
	// ScaleAdd multiplies row r of x, rows of stride, by w[r] and adds the products to sum.
	ScaleAdd func(x []float32, stride int, sum, w []float32)
	// Axpy2 adds w*src to dst and v*src to sum.
	Axpy2 func(dst, sum, src []float32, w, v float32)
	// RotateBy turns each pair (lo, hi) by the angle whose cosine and sine are given plus delta*freq, with |delta*freq| at
	// most a half, and multiplies it by scale.
	RotateBy func(lo, hi, cos, sin, freq []float32, delta, scale float32)
	// Unrotate turns each pair (lo, hi) back by the angle whose cosine and sine are given.
	Unrotate func(lo, hi, cos, sin []float32)
	// Mul writes to c, [m, n] with rows of ldc, the product of a, [m, k], and b, [k, n] with rows of ldb. Element (i, j) of a lies
	// at i*ra + j*ca. m is a multiple of MulRows, n of Lanes. MulAdd adds it to c.
	Mul, MulAdd func(c []float32, ldc int, a []float32, ra, ca int, b []float32, ldb, m, k, n int)
	// MaxRows raises each of top to the largest of its column in x, rows of len(top), a multiple of Lanes.
	MaxRows func(top, x []float32)
	// ExpRows replaces x, rows of len(top), a multiple of Lanes, none above its column's top, by exp(x-top), adds each column to
	// sum and its squares to squares. What is below exp(-40) may come out as up to that.
	ExpRows func(x, top, sum, squares []float32)
	// RowDots writes to dst[r] the dot product of rows r of x and of y, d floats long, a multiple of Pad. Rows are sx and sy floats
	// apart. The length of dst is a multiple of 4.
	RowDots func(dst, x []float32, sx int, y []float32, sy, d int)
	// MaxAbs is the largest absolute value of x.
	MaxAbs func(x []float32) float32
	// NarrowE4M3 rounds w*src to the 8-bit type E4M3, to nearest even; beyond the largest finite value it saturates.
	NarrowE4M3 func(dst []byte, src []float32, w float32)
	// Mirror copies each 4x4 block above the diagonal of s, rows of ld, transposed below it; n is a multiple of 4.
	Mirror func(s []float32, ld, n int)
	// Quantize writes floor(scale*src) to dst for n elements, the least int16 for the rest of ld, a multiple of 16, and
	// returns the sum of the n. A product that whole numbers of 16 bits cannot hold saturates.
	Quantize func(dst []int16, src []float32, scale float32, n, ld int) float64
	// Weigh replaces each similarity by 1024 - min((1024-row)*weight/256, 32767), rounded down: one minus the weighed cost of
	// a merge. No similarity is above 1024 or below -1025.
	Weigh func(row []int16, weight []uint16)
	// Rank writes the indices of keys to order, the smallest key first. All keys differ.
	Rank func(order []uint16, keys []uint64)
	// Reorder writes to row r, column j of dst what src holds at order[r], order[j], for j > r; the rest is unspecified. Both
	// have rows of ld, a multiple of 16, and as many as order names, each once.
	Reorder func(dst, src []int16, ld int, order []uint16)
	// Count runs greedy clustering in chunks and returns the number of clusters. Chunk k has its similarities at
	// sim[starts[k]:], rows of ld by seed priority, and a bit for each candidate in as many words of live as ld bits need. The
	// first candidate that is free is a seed and takes every free one behind it that is at least t similar.
	Count func(sim []int16, ld int, starts []int, live []uint64, t int) int
	// Hadamard multiplies each block of size elements of x, a power of two that divides its length, by the Hadamard matrix of
	// Sylvester's order, without its norm. It and the next three give the same bits in every set.
	Hadamard func(x []float32, size int)
	// RoundLoss is the squared error, in steps, of rounding x*inv + top/2 to whole numbers from 0 to top. No element is further
	// than 2^30 steps from them.
	RoundLoss func(x []float32, inv, top float32) float32
	// RoundCodes writes the whole numbers from 0 to top nearest to x/step + top/2, ties to even: a byte each where top is 255, two to a
	// byte, the first in its lower half, where it is 15. The length of x is even, and no element as far as 2^30 steps.
	RoundCodes func(codes []byte, x []float32, step, top float32)
	// Levels writes 2*code - top of each of such codes to dst, whose length is even.
	Levels func(dst []float32, codes []byte, top float32)
	// BF16 and F16 read and write the 16-bit floats, little-endian.
	BF16, F16 Half
}

// Angles is a table of cosines and sines, rows of Half.
type Angles struct {
	Cos, Sin []float32
	Half     int
}

func (a Angles) row(i int32) (cos, sin []float32) {
	from := int(i) * a.Half
	return a.Cos[from : from+a.Half], a.Sin[from : from+a.Half]
}

// Half is what is done with one kind of 16-bit float.
type Half struct {
	// Widen converts len(dst) elements.
	Widen func(dst []float32, src []byte)
	// Narrow rounds len(src) floats to nearest even. Beyond the largest finite value it saturates.
	Narrow func(dst []byte, src []float32)
	// Unrotate widens len(at) rows of 2*half elements, turns the pairs (i, half+i) of row r back by row at[r] of the angles
	// and writes them to dst, rows of stride, and the sum of their squares to squares[r].
	Unrotate func(dst []float32, stride int, squares []float32, src []byte, angles Angles, at []int32)
	// UnrotateDot does the same and writes each row's dot product with direction to dst.
	UnrotateDot func(dst, direction []float32, src []byte, angles Angles, at []int32)
	// UnrotateAdd widens a row of 2*len(cos) elements, turns it back by one angle and adds it, times kw, to key and, times
	// uw, to unit.
	UnrotateAdd func(key, unit []float32, src []byte, cos, sin []float32, kw, uw float32)
	// Axpy adds w*src to dst.
	Axpy func(dst []float32, src []byte, w float32)
}

// Generic is plain Go.
func Generic() *Kernels { return &generic }

// Best is the fastest set that this processor runs, chosen once.
func Best() *Kernels { return best }

// All lists every set that this processor runs, plain Go first.
func All() []*Kernels { return all }

var best = all[len(all)-1]
