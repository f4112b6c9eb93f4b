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
	at16 := func(src []byte, i int) float32 { return widen(binary.LittleEndian.Uint16(src[2*i:])) }
	return Half{
		Widen: func(dst []float32, src []byte) {
			for i := range dst {
				dst[i] = at16(src, i)
			}
		},
		Narrow: func(dst []byte, src []float32) {
			for i, x := range src {
				binary.LittleEndian.PutUint16(dst[2*i:], narrow(x))
			}
		},
		Unrotate: func(dst []float32, stride int, squares []float32, src []byte, angles Angles, at []int32) {
			n := angles.Half
			for r, from := range at {
				row := dst[r*stride:][:2*n]
				for i := range row {
					row[i] = at16(src, 2*n*r+i)
				}
				cos, sin := angles.row(from)
				unrotate(row[:n], row[n:], cos, sin)
				squares[r] = dot(row, row)
			}
		},
		UnrotateDot: func(dst, direction []float32, src []byte, angles Angles, at []int32) {
			n := angles.Half
			for r, from := range at {
				cos, sin := angles.row(from)
				low, high := float32(0), float32(0)
				for i, c := range cos {
					u, v, s := at16(src, 2*n*r+i), at16(src, 2*n*r+n+i), sin[i]
					low += (u*c + v*s) * direction[i]
					high += (v*c - u*s) * direction[n+i]
				}
				dst[r] = low + high
			}
		},
		UnrotateAdd: func(key, unit []float32, src []byte, cos, sin []float32, kw, uw float32) {
			n := len(cos)
			for i, c := range cos {
				u, v, s := at16(src, i), at16(src, n+i), sin[i]
				a, b := u*c+v*s, v*c-u*s
				key[i] += kw * a
				key[n+i] += kw * b
				unit[i] += uw * a
				unit[n+i] += uw * b
			}
		},
		Axpy: func(dst []float32, src []byte, w float32) {
			for i := range dst {
				dst[i] += w * at16(src, i)
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
