package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
)

var benchTypes = map[string]compress.DType{"f32": compress.F32, "f16": compress.F16, "bf16": compress.BF16}

// page is a random page whose keys cluster as real ones do: a shared direction, a few dozen meanings, noise.
func (f *pageFlags) page() (*compress.Input, error) {
	dtype, ok := benchTypes[f.dtype]
	if !ok {
		return nil, fmt.Errorf("--dtype must be f32, f16 or bf16, got %q", f.dtype)
	}
	for name, n := range map[string]int{"layers": f.layers, "heads": f.heads, "tokens": f.tokens, "dim": f.dim} {
		if n < 1 || n > 1<<20 {
			return nil, fmt.Errorf("--%s must be 1 to %d, got %d", name, 1<<20, n)
		}
	}
	if f.layers*f.heads > 1<<14 || f.layers*f.heads*f.tokens > 1<<30/f.dim {
		return nil, fmt.Errorf("a page of %d layers, %d heads, %d tokens and %d elements is too large", f.layers, f.heads, f.tokens, f.dim)
	}
	r := rand.New(rand.NewPCG(1, 2))
	in := &compress.Input{
		DType: dtype, Layers: f.layers, Heads: f.heads, Tokens: f.tokens, Dim: f.dim,
		Rope: compress.Rope{Type: "default", Theta: 500000, Dim: f.dim &^ 1}, Boundary: make([]byte, f.tokens),
	}
	freq, err := in.Rope.Frequencies()
	if err != nil {
		return nil, err
	}
	for i := range f.tokens {
		in.Positions = append(in.Positions, int32(i))
		if r.IntN(16) == 0 {
			in.Boundary[i] = 1
		}
	}
	n := f.layers * f.heads * f.tokens * f.dim
	in.K, in.V = make([]byte, 0, n*dtype.Size()), make([]byte, 0, n*dtype.Size())
	const meanings = 48
	centres, row := make([]float32, (meanings+1)*f.dim), make([]float32, f.dim)
	for range f.layers * f.heads {
		for i := range centres {
			centres[i] = float32(r.NormFloat64())
		}
		for t := range f.tokens {
			c := centres[r.IntN(meanings)*f.dim:]
			for e := range row {
				row[e] = centres[meanings*f.dim+e] + c[e] + 0.7*(r.Float32()+r.Float32()-1)
			}
			for e, w := range freq {
				s, c := math.Sincos(w * float64(t))
				a, b := float64(row[e]), float64(row[e+len(freq)])
				row[e], row[e+len(freq)] = float32(a*c-b*s), float32(b*c+a*s)
			}
			in.K = appendFloats(in.K, row, dtype)
			for e := range row {
				row[e] = 2 * (r.Float32() + r.Float32() - 1)
			}
			in.V = appendFloats(in.V, row, dtype)
		}
	}
	return in, nil
}

// appendFloats rounds towards zero; what is below F16's normal numbers becomes zero.
func appendFloats(dst []byte, x []float32, dtype compress.DType) []byte {
	for _, v := range x {
		b := math.Float32bits(v)
		switch dtype {
		case compress.F32:
			dst = binary.LittleEndian.AppendUint32(dst, b)
		case compress.BF16:
			dst = binary.LittleEndian.AppendUint16(dst, uint16(b>>16))
		default:
			h := uint16(b >> 16 & 0x8000)
			if m := b & 0x7fffffff; m >= 0x38800000 {
				h |= uint16((m - 0x38000000) >> 13)
			}
			dst = binary.LittleEndian.AppendUint16(dst, h)
		}
	}
	return dst
}

// batchSums adds up what a device's batches took.
type batchSums struct {
	mu                 sync.Mutex
	batches, pages     int
	bytes              float64
	in, kernels, outed time.Duration
}

func (s *batchSums) observer(onCPU *int64) gpu.Observer {
	return gpu.Observer{
		Batch: func(b gpu.Batch) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.batches++
			s.pages += b.Pages
			s.bytes += float64(b.Bytes)
			s.in, s.kernels, s.outed = s.in+b.CopyIn, s.kernels+b.Kernels, s.outed+b.CopyOut
		},
		Fallback: func(string, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			*onCPU++
		},
	}
}

func (s *batchSums) report(r *benchReport, rates *gpu.Rates) *gpuBench {
	s.mu.Lock()
	defer s.mu.Unlock()
	kernels := float64(s.pages) * float64(r.PageBytes) / s.kernels.Seconds()
	return &gpuBench{
		PagesPerBatch: float64(s.pages) / float64(s.batches),
		KernelRate:    kernels, KernelFraction: kernels / rates.Within,
		CopyInRate: s.bytes / s.in.Seconds(), DeviceCopy: rates.Within, PinnedIn: rates.In, PinnedOut: rates.Out,
		Staging: r.Rate / rates.In,
	}
}
