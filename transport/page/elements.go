package page

import (
	"encoding/binary"
	"math"
)

// widenRow reads len(dst) elements of BF16, F16 or F32.
func widenRow(dst []float32, src []byte, d DType) {
	switch d {
	case BF16:
		for i := range dst {
			dst[i] = bf16At(src, i)
		}
	case F16:
		for i := range dst {
			dst[i] = halfOf(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		for i := range dst {
			dst[i] = float32At(src, i)
		}
	}
}

// narrowRow rounds to nearest, ties to even.
func narrowRow(dst []byte, src []float32, d DType) {
	switch d {
	case BF16:
		i := 0
		for ; i+4 <= len(src); i += 4 {
			s := src[i : i+4 : i+4]
			a, b, c, d := uint64(roundedBF16(s[0])), uint64(roundedBF16(s[1])), uint64(roundedBF16(s[2])), uint64(roundedBF16(s[3]))
			binary.LittleEndian.PutUint64(dst[2*i:], a|b<<16|c<<32|d<<48)
		}
		for ; i < len(src); i++ {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(roundedBF16(src[i])))
		}
	case F16:
		dst = dst[:2*len(src)]
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], toHalf(f))
		}
	default:
		for i, f := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(f))
		}
	}
}

func roundedBF16(f float32) uint32 {
	b := math.Float32bits(f)
	return (b + 0x7fff + b>>16&1) >> 16
}

// halfOf widens a finite F16.
func halfOf(h uint16) float32 {
	sign, rest := uint32(h&0x8000)<<16, uint32(h&0x7fff)
	if rest >= 0x400 {
		return math.Float32frombits(sign | (rest<<13 + 112<<23))
	}
	f := float32(rest) * (1.0 / (1 << 24))
	return math.Float32frombits(math.Float32bits(f) | sign)
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
