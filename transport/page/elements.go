package page

import (
	"encoding/binary"
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// widenRow reads len(dst) elements of BF16, F16 or F32.
func widenRow(dst []float32, src []byte, d DType) {
	switch d {
	case BF16:
		simd.Best().BF16.Widen(dst, src)
	case F16:
		simd.Best().F16.Widen(dst, src)
	default:
		for i := range dst {
			dst[i] = float32At(src, i)
		}
	}
}

// narrowRow rounds to nearest, ties to even; what is too large becomes an infinity.
func narrowRow(dst []byte, src []float32, d DType) {
	kernels := simd.Best()
	most := kernels.MaxAbs(src)
	switch {
	case d == BF16 && most <= maxBF16: // beyond it the kernel saturates
		kernels.BF16.Narrow(dst, src)
	case d == BF16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(roundedBF16(f)))
		}
	case d == F16 && most <= maxF16:
		kernels.F16.Narrow(dst, src)
	case d == F16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], toHalf(f))
		}
	default:
		for i, f := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(f))
		}
	}
}

// The largest finite BF16 and F16.
const maxBF16, maxF16 = 0x1.fep127, 65504

func roundedBF16(f float32) uint32 {
	b := math.Float32bits(f)
	return (b + 0x7fff + b>>16&1) >> 16
}

// toHalf rounds a finite float to F16; what is too large becomes an infinity.
func toHalf(f float32) uint16 {
	b := math.Float32bits(f)
	sign, rest := uint16(b>>16&0x8000), b&0x7fffffff
	switch {
	case rest >= 0x477ff000: // 65520 rounds beyond the largest
		return sign | 0x7c00
	case rest >= 0x38800000: // a normal number
		return sign | uint16((rest-112<<23+0xfff+rest>>13&1)>>13)
	}
	// Below 2^-14 the steps are 2^-24: adding 1/2 leaves the rounded multiple in the low bits.
	return sign | uint16(math.Float32bits(math.Float32frombits(rest)+0.5)-0x3f000000)
}
