package simd

import "math"

func maxAbs(x []float32) float32 {
	most := float32(0)
	for _, v := range x {
		most = max(most, v, -v)
	}
	return most
}

func narrowE4M3(dst []byte, src []float32, w float32) {
	for i, x := range src {
		dst[i] = E4M3.Encode(x * w)
	}
}

// FP8 describes an 8-bit float: mantissa bits, exponent bias and the largest finite code.
type FP8 struct {
	Mantissa, Bias int
	Max            byte
}

// The two 8-bit floats of OCP: E4M3 has no infinities, E5M2 does.
var (
	E4M3 = FP8{Mantissa: 3, Bias: 7, Max: 0x7e}
	E5M2 = FP8{Mantissa: 2, Bias: 15, Max: 0x7b}
)

// Encode rounds to nearest even; beyond the largest finite value it saturates.
func (f FP8) Encode(x float32) byte {
	b := math.Float32bits(x)
	sign := byte(b>>24) & 0x80
	b &= 0x7fffffff
	if b > 0x7f800000 {
		return sign | 0x7f
	}
	shift := 23 - f.Mantissa
	minNormal := uint32(127+1-f.Bias) << 23
	if b < minNormal { // subnormal: add the power of two whose last bit is worth the smallest subnormal
		magic := uint32(127+1-f.Bias+shift) << 23
		return sign | byte(math.Float32bits(math.Float32frombits(b)+math.Float32frombits(magic))-magic)
	}
	r := (b - uint32(127-f.Bias)<<23 + 1<<(shift-1) - 1 + b>>shift&1) >> shift
	return sign | byte(min(r, uint32(f.Max)))
}
