package compress_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/semproxy/semproxy/compress"
)

// synthetic is a page of keys that cluster as real ones do: a shared direction, a few dozen meanings, noise, then RoPE.
func synthetic(layers, heads, tokens, dim int, dtype compress.DType) *compress.Input {
	r := rand.New(rand.NewPCG(1, uint64(tokens*dim)))
	in := &compress.Input{DType: dtype, Layers: layers, Heads: heads, Tokens: tokens, Dim: dim,
		Rope: compress.Rope{Type: "default", Theta: 10000, Dim: dim}, Boundary: make([]byte, tokens), Positions: make([]int32, tokens)}
	freq, _ := in.Rope.Frequencies()
	for i := range in.Positions {
		in.Positions[i] = int32(i)
		if r.IntN(12) == 0 {
			in.Boundary[i] = 1
		}
	}
	const meanings = 48
	for range layers * heads {
		centre := make([][]float64, meanings)
		common := gauss(r, dim)
		for m := range centre {
			centre[m] = gauss(r, dim)
		}
		for i := range tokens {
			k, m := make([]float64, dim), centre[r.IntN(meanings)]
			for j := range k {
				k[j] = common[j] + m[j] + 0.4*r.NormFloat64()
			}
			for j, f := range freq {
				s, c := math.Sincos(f * float64(i))
				a, b := k[j], k[j+dim/2]
				k[j], k[j+dim/2] = a*c-b*s, b*c+a*s
			}
			in.K = appendRow(in.K, k, dtype)
			in.V = appendRow(in.V, gauss(r, dim), dtype)
		}
	}
	in.QDType, in.QHeads, in.QWindow = compress.F32, 2*heads, 3
	in.Q = appendRow(nil, gauss(r, layers*in.QHeads*in.QWindow*dim), compress.F32)
	if dtype.FP8() {
		in.KScale, in.VScale = make([]float32, layers*heads), make([]float32, layers*heads)
		for i := range in.KScale {
			in.KScale[i], in.VScale[i] = 1, 1
		}
	}
	return in
}

func gauss(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

// appendRow rounds towards zero, which is all that a benchmark or a property needs. FP8 rows are random small codes.
func appendRow(dst []byte, x []float64, dtype compress.DType) []byte {
	for _, v := range x {
		b := math.Float32bits(float32(v))
		switch dtype {
		case compress.F32:
			dst = binary.LittleEndian.AppendUint32(dst, b)
		case compress.BF16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(b>>16))
		case compress.F16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(b>>16&0x8000|(b&0x7fffffff-0x38000000)>>13))
		default:
			dst = append(dst, byte(b>>24&0x80|(b&0x7fffffff-0x3c000000)>>20&0x7f))
		}
	}
	return dst
}
