package eval

import (
	"encoding/binary"
	"math"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// widen converts len(dst) little-endian elements of F32, F16 or BF16.
func widen(kn *simd.Kernels, dst []float32, src []byte, t compress.DType) {
	switch t {
	case compress.F16:
		kn.F16.Widen(dst, src)
	case compress.BF16:
		kn.BF16.Widen(dst, src)
	default:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	}
}

// narrow rounds src to nearest even into dst. F16 saturates at its largest finite value.
func narrow(dst []byte, src []float32, t compress.DType) {
	switch t {
	case compress.F16:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], toF16(x))
		}
	case compress.BF16:
		for i, x := range src {
			b := math.Float32bits(x)
			binary.LittleEndian.PutUint16(dst[2*i:], uint16((b+0x7fff+b>>16&1)>>16))
		}
	default:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
	}
}

// toF16 rounds by arithmetic: adding a power of two pushes the bits below F16's last place out of the float32 sum.
func toF16(x float32) uint16 {
	sign := uint16(math.Float32bits(x)>>16) & 0x8000
	a := math.Float32frombits(math.Float32bits(x) &^ (1 << 31))
	switch {
	case a != a:
		return sign | 0x7e00
	case a >= 65504:
		return sign | 0x7bff
	case a < 0x1p-14: // subnormal: steps of 2^-24, which is the last place of floats from 1/2
		return sign | uint16(math.Float32bits(a+0.5)-math.Float32bits(0.5))
	}
	b := math.Float32bits(a)
	b += 0xfff + b>>13&1
	return sign | uint16((b>>13)-(112<<10))
}

// grow returns n elements, reusing s's memory when it is large enough. The contents are unspecified.
func grow[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}

// zeroed is grow with the elements set to zero.
func zeroed[T any](s []T, n int) []T {
	s = grow(s, n)
	clear(s)
	return s
}
