package simd

import "math"

// The loops of rows in few bits (transport/page/bits). All sets of kernels give the same bits: every step is rounded alike, and sums are
// taken in the same order.

// CodeLanes is how many partial sums RoundLoss takes: element i goes to sum i mod CodeLanes.
const CodeLanes = 8

// hadamard multiplies each block of size elements of x, a power of two that divides its length, by the Hadamard matrix of Sylvester's
// order, without its norm.
func hadamard(x []float32, size int) {
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

// roundLoss is the squared error, in steps, of rounding x*inv + top/2 to whole numbers from 0 to top. No element is further than 2^30
// steps from them.
func roundLoss(x []float32, inv, top float32) float32 {
	var sums [CodeLanes]float32
	for i, v := range x {
		u := float32(v*inv) + top/2 // the conversions keep processors from fusing
		q := min(max(float32(int32(float32(u+0.5))), 0), top)
		d := float32(u - q)
		sums[i%CodeLanes] += float32(d * d)
	}
	var four [4]float32
	for i := range four {
		four[i] = sums[i] + sums[i+4]
	}
	return (four[0] + four[1]) + (four[2] + four[3])
}

// roundCodes writes the whole numbers from 0 to top nearest to x/step + top/2, ties to even: a byte each where top is 255, two to a
// byte, the first in its lower half, where it is 15. The length of x is even.
func roundCodes(codes []byte, x []float32, step, top float32) {
	code := func(v float32) byte {
		return byte(min(max(math.RoundToEven(float64(float32(v/step)+top/2)), 0), float64(top)))
	}
	if top == 255 {
		for i, v := range x {
			codes[i] = code(v)
		}
		return
	}
	for i := 0; i < len(x); i += 2 {
		codes[i/2] = code(x[i]) | code(x[i+1])<<4
	}
}

// levels writes 2*code - top of each code to dst, whose length is even.
func levels(dst []float32, codes []byte, top float32) {
	if top == 255 {
		for i := range dst {
			dst[i] = 2*float32(codes[i]) - 255
		}
		return
	}
	for i := 0; i < len(dst); i += 2 {
		dst[i], dst[i+1] = 2*float32(codes[i/2]&15)-15, 2*float32(codes[i/2]>>4)-15
	}
}
