package compress

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// DType is the element type of K, V and Q. All are little-endian in memory.
type DType uint8

// The element types a page may carry. FP8 follows OCP: E4M3 has no infinities, E5M2 does.
const (
	F32 DType = iota
	F16
	BF16
	F8E4M3
	F8E5M2
	dtypes // how many there are
)

var dtypeNames = [dtypes]string{"F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}

// String gives the safetensors name.
func (t DType) String() string {
	if t >= dtypes {
		return fmt.Sprintf("DType(%d)", uint8(t))
	}
	return dtypeNames[t]
}

// Size is the number of bytes of one element.
func (t DType) Size() int {
	switch t {
	case F32:
		return 4
	case F16, BF16:
		return 2
	default:
		return 1
	}
}

// FP8 reports whether t is an 8-bit type, which needs a scale per head.
func (t DType) FP8() bool { return t == F8E4M3 || t == F8E5M2 }

// halfOf is the kernels of a 16-bit type, nil for the others.
func halfOf(kn *simd.Kernels, t DType) *simd.Half {
	switch t {
	case BF16:
		return &kn.BF16
	case F16:
		return &kn.F16
	}
	return nil
}

// widen converts len(dst) elements of src to float32 and multiplies them by scale.
// Only FP8 carries a scale other than one.
func widen(kn *simd.Kernels, dst []float32, src []byte, t DType, scale float32) {
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		kn.F16.Widen(dst, src)
	case BF16:
		kn.BF16.Widen(dst, src)
	case F8E4M3:
		for i, b := range src[:len(dst)] {
			dst[i] = e4m3[b] * scale
		}
	case F8E5M2:
		for i, b := range src[:len(dst)] {
			dst[i] = e5m2[b] * scale
		}
	}
}

// narrow rounds len(src) floats to nearest even into dst, after dividing by scale (FP8 only). Beyond the largest finite
// value it saturates: a merged key may be a rounding error larger than every key that it stands for.
func narrow(kn *simd.Kernels, dst []byte, src []float32, t DType, scale float32) {
	switch t {
	case F32:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(x))
		}
	case F16:
		kn.F16.Narrow(dst, src)
	case BF16:
		kn.BF16.Narrow(dst, src)
	case F8E4M3:
		kn.NarrowE4M3(dst, src, 1/scale)
	case F8E5M2:
		for i, x := range src {
			dst[i] = simd.E5M2.Encode(x / scale)
		}
	}
}

var (
	e4m3 = fp8Table(simd.E4M3)
	e5m2 = fp8Table(simd.E5M2)
)

// fp8Table decodes every code.
func fp8Table(f simd.FP8) (t [256]float32) {
	for c := range 256 {
		code := byte(c & 0x7f)
		exp, frac := int(code>>f.Mantissa), int(code)&(1<<f.Mantissa-1)
		x := math.NaN()
		switch {
		case code == 0x7c && f == simd.E5M2:
			x = math.Inf(1)
		case code > f.Max:
		case exp == 0:
			x = math.Ldexp(float64(frac), 1-f.Bias-f.Mantissa)
		default:
			x = math.Ldexp(float64(frac+1<<f.Mantissa), exp-f.Bias-f.Mantissa)
		}
		if c >= 128 {
			x = -x
		}
		t[c] = float32(x)
	}
	return t
}
