package simd

import (
	"encoding/binary"
	"math"
)

var (
	genericBF16 = half(bf16to32, bf16from32)
	genericF16  = half(f16to32, f16from32)
)

// half makes the plain loops of one kind of 16-bit float.
func half(widen func(uint16) float32, narrow func(float32) uint16) Half {
	at := func(src []byte, i int) float32 { return widen(binary.LittleEndian.Uint16(src[2*i:])) }
	return Half{
		Widen: func(dst []float32, src []byte) {
			for i := range dst {
				dst[i] = at(src, i)
			}
		},
		Narrow: func(dst []byte, src []float32) {
			for i, x := range src {
				binary.LittleEndian.PutUint16(dst[2*i:], narrow(x))
			}
		},
		Unrotate: func(dst []float32, src []byte, cos, sin []float32) float32 {
			n := len(cos)
			for i := range 2 * n {
				dst[i] = at(src, i)
			}
			unrotate(dst[:n], dst[n:2*n], cos, sin)
			return dot(dst[:2*n], dst[:2*n])
		},
		UnrotateAdd: func(key, unit []float32, src []byte, cos, sin []float32, kw, uw float32) {
			n := len(cos)
			for i, c := range cos {
				u, v, s := at(src, i), at(src, n+i), sin[i]
				a, b := u*c+v*s, v*c-u*s
				key[i] += kw * a
				key[n+i] += kw * b
				unit[i] += uw * a
				unit[n+i] += uw * b
			}
		},
		UnrotateDot: func(direction []float32, src []byte, cos, sin []float32) float32 {
			n, low, high := len(cos), float32(0), float32(0)
			for i, c := range cos {
				u, v, s := at(src, i), at(src, n+i), sin[i]
				low += (u*c + v*s) * direction[i]
				high += (v*c - u*s) * direction[n+i]
			}
			return low + high
		},
		Axpy: func(dst []float32, src []byte, w float32) {
			for i := range dst {
				dst[i] += w * at(src, i)
			}
		},
	}
}

func bf16to32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

func bf16from32(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f7f0000 && x == x { // beyond the largest finite value
		return uint16(b>>16)&0x8000 | 0x7f7f
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

func f16to32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	if h&0x7c00 == 0x7c00 { // Inf, NaN
		return math.Float32frombits(sign | 0x7f800000 | uint32(h&0x3ff)<<13)
	}
	// Shifted in place the exponent is 112 too small; the product restores it and normalises subnormals.
	m := math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(m))
}

func f16from32(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b>>16) & 0x8000
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00
	case b >= 0x477fe000: // 65504, and what would round past it
		return sign | 0x7bff
	case b < 0x38800000: // subnormal: let the float adder round at 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	}
	return sign | uint16((b-0x38000000+0xfff+b>>13&1)>>13)
}
