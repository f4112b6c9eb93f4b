//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/fake"
)

// readTensors reads a safetensors file of the project's own.
func readTensors(t testing.TB, file string) (shape map[string][]int, data map[string][]byte) {
	t.Helper()
	blob, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(blob)
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(blob[8:8+n], &raw); err != nil {
		t.Fatal(err)
	}
	shape, data = map[string][]int{}, map[string][]byte{}
	for name, r := range raw {
		var x struct {
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}
		if name == "__metadata__" {
			continue
		}
		if err := json.Unmarshal(r, &x); err != nil {
			t.Fatal(err)
		}
		shape[name], data[name] = x.Shape, blob[8+int(n)+x.Offsets[0]:8+int(n)+x.Offsets[1]]
	}
	return shape, data
}

// realPages are the pages of the repository and, where they lie beside it, those that may only be used for measuring.
func realPages(t testing.TB) map[string]*compress.Input {
	t.Helper()
	dirs := map[string]string{"kjv": "../configs/demo", "kjv_facts": "../configs/demo", "kjv_long": "../configs/demo"}
	shared := "../../shared/data/pages"
	if _, err := os.Stat(shared); err == nil {
		dirs["man"], dirs["recall"] = shared, shared
	} else if fake.Required("shared") {
		t.Fatalf("SEMPROXY_TEST_REQUIRE names shared, but %v", err)
	}
	pages := map[string]*compress.Input{}
	for name, dir := range dirs {
		shape, data := readTensors(t, filepath.Join(dir, name+".page.safetensors"))
		k, q := shape["k"], shape["q"]
		in := &compress.Input{
			DType: compress.F16, Layers: k[0], Heads: k[1], Tokens: k[2], Dim: k[3], K: data["k"], V: data["v"], Boundary: data["boundary"],
			Rope: compress.Rope{Type: "default", Theta: 10000, Dim: 64}, Q: data["q"], QDType: compress.F16, QHeads: q[1], QWindow: q[2],
		}
		for i := range in.Tokens {
			in.Positions = append(in.Positions, int32(binary.LittleEndian.Uint32(data["positions"][4*i:])))
		}
		pages[name] = in
	}
	return pages
}

// shape describes a random page.
type shape struct {
	layers, heads, tokens, dim int
	dtype                      compress.DType
	rope                       compress.Rope
}

// random is a page of keys that cluster as real ones do: a shared direction, a few dozen meanings, noise, then RoPE.
func random(seed uint64, s shape) *compress.Input {
	r := rand.New(rand.NewPCG(seed, 7))
	in := &compress.Input{DType: s.dtype, Layers: s.layers, Heads: s.heads, Tokens: s.tokens, Dim: s.dim, Rope: s.rope, Boundary: make([]byte, s.tokens)}
	freq, err := s.rope.Frequencies()
	if err != nil {
		panic(err)
	}
	at := int32(r.IntN(1000))
	for i := range s.tokens {
		in.Positions = append(in.Positions, at)
		at += 1 + int32(r.IntN(40)/39)
		if r.IntN(12) == 0 {
			in.Boundary[i] = 1
		}
	}
	const meanings = 40
	for range s.layers * s.heads {
		centre, common := make([][]float64, meanings), gauss(r, s.dim)
		for m := range centre {
			centre[m] = gauss(r, s.dim)
		}
		for i := range s.tokens {
			k, c := make([]float64, s.dim), centre[r.IntN(meanings)]
			for j := range k {
				k[j] = common[j] + c[j] + 0.4*r.NormFloat64()
			}
			for j, f := range freq {
				sin, cos := math.Sincos(f * float64(in.Positions[i]))
				x, y := j, j+len(freq)
				if s.rope.Interleaved {
					x, y = 2*j, 2*j+1
				}
				a, b := k[x], k[y]
				k[x], k[y] = a*cos-b*sin, b*cos+a*sin
			}
			in.K = appendRow(in.K, k, s.dtype)
			in.V = appendRow(in.V, gauss(r, s.dim), s.dtype)
		}
	}
	if s.dtype.FP8() {
		for range s.layers * s.heads {
			in.KScale = append(in.KScale, 0.5+r.Float32())
			in.VScale = append(in.VScale, 0.5+r.Float32())
		}
	}
	return in
}

func withQueries(in *compress.Input, heads, window int) *compress.Input {
	r := rand.New(rand.NewPCG(3, 9))
	in.QDType, in.QHeads, in.QWindow = compress.F32, heads, window
	in.Q = appendRow(nil, gauss(r, in.Layers*heads*window*in.Dim), compress.F32)
	return in
}

func gauss(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

// appendRow rounds towards zero. FP8 rows are some small codes.
func appendRow(dst []byte, x []float64, dtype compress.DType) []byte {
	for _, v := range x {
		b := math.Float32bits(float32(v))
		switch dtype {
		case compress.F32:
			dst = binary.LittleEndian.AppendUint32(dst, b)
		case compress.BF16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(b>>16))
		case compress.F16:
			h := uint16(0)
			if b&0x7fffffff >= 0x38800000 {
				h = uint16((b&0x7fffffff - 0x38000000) >> 13)
			}
			dst = binary.LittleEndian.AppendUint16(dst, uint16(b>>16&0x8000)|h)
		case compress.F8E4M3:
			code := byte(0)
			if b&0x7fffffff >= 0x3c800000 {
				code = byte((b&0x7fffffff - 0x3c000000) >> 20)
			}
			dst = append(dst, byte(b>>24&0x80)|code)
		default:
			code := byte(0)
			if b&0x7fffffff >= 0x38800000 {
				code = byte((b&0x7fffffff - 0x38000000) >> 21)
			}
			dst = append(dst, byte(b>>24&0x80)|code)
		}
	}
	return dst
}
