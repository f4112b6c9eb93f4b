//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/gpu/fake"
)

func labOptions(t *testing.T) gpu.Options {
	t.Helper()
	opt := gpu.Options{Memory: 64 << 20}
	if !fake.Required("cuda") {
		opt.Library = fake.Library(t)
	}
	return opt
}

// The decode kernel gives what the definition of proportional attention gives in float64: paged, grouped queries, a bias or a
// count per key, padding, sequences of different length.
func TestDecodeIsProportionalAttention(t *testing.T) {
	opt := labOptions(t)
	for i, s := range []gpu.DecodeShape{
		{Batch: 2, KVHeads: 2, QHeads: 8, Dim: 64, Tokens: 150, BlockSize: 16, DType: compress.F32},
		{Batch: 1, KVHeads: 1, QHeads: 1, Dim: 128, Tokens: 700, BlockSize: 16, DType: compress.BF16},
		{Batch: 3, KVHeads: 1, QHeads: 20, Dim: 256, Tokens: 70, BlockSize: 8, DType: compress.F16},
		{Batch: 1, KVHeads: 2, QHeads: 4, Dim: 80, Tokens: 33, BlockSize: 32, DType: compress.F32},
	} {
		for _, kind := range []string{"plain", "counts", "bias", "both"} {
			r := rand.New(rand.NewPCG(uint64(i), 5))
			blocks := (s.Tokens + s.BlockSize - 1) / s.BlockSize
			rows := s.Batch * blocks * s.BlockSize * s.KVHeads
			c := &gpu.Cache{K: appendRow(nil, gauss(r, rows*s.Dim), s.DType), V: appendRow(nil, gauss(r, rows*s.Dim), s.DType)}
			for _, k := range r.Perm(s.Batch * blocks) {
				c.Table = append(c.Table, int32(k))
			}
			for range s.Batch * s.KVHeads {
				c.Lens = append(c.Lens, int32(1+r.IntN(s.Tokens)))
			}
			c.Lens[0] = int32(s.Tokens)
			for range rows {
				if kind == "counts" || kind == "both" {
					c.Counts = append(c.Counts, int32(r.IntN(5)))
				}
				if kind == "bias" || kind == "both" {
					b := float32(r.Float64() * 3)
					if r.IntN(6) == 0 {
						b = float32(math.Inf(-1))
					}
					c.Bias = append(c.Bias, b)
				}
			}
			q := appendRow(nil, gauss(r, s.Batch*s.QHeads*s.Dim), s.DType)
			got, err := gpu.Decode(opt, s, q, c)
			if err != nil {
				t.Fatal(err)
			}
			near(t, fmt.Sprintf("%+v, %s", s, kind), got, decoded(s, q, c), 1e-4)
		}
	}
}

// decoded is the definition.
func decoded(s gpu.DecodeShape, query []byte, c *gpu.Cache) []float32 {
	in := &compress.Input{Layers: 1, Heads: 1}
	q, k, v := floats(query, s.DType, nil, in), floats(c.K, s.DType, nil, in), floats(c.V, s.DType, nil, in)
	blocks := (s.Tokens + s.BlockSize - 1) / s.BlockSize
	var out []float32
	for b := range s.Batch {
		for h := range s.QHeads {
			kv := h / (s.QHeads / s.KVHeads)
			sum, acc := 0.0, make([]float64, s.Dim)
			for t := range int(c.Lens[b*s.KVHeads+kv]) {
				row := (int(c.Table[b*blocks+t/s.BlockSize])*s.BlockSize+t%s.BlockSize)*s.KVHeads + kv
				bias := 0.0
				if c.Counts != nil {
					if c.Counts[row] == 0 {
						continue
					}
					bias = math.Log(float64(c.Counts[row]))
				}
				if c.Bias != nil {
					bias = float64(c.Bias[row])
				}
				logit := 0.0
				for e := range s.Dim {
					logit += float64(q[(b*s.QHeads+h)*s.Dim+e]) * float64(k[row*s.Dim+e])
				}
				w := math.Exp(logit/math.Sqrt(float64(s.Dim)) + bias)
				sum += w
				for e := range acc {
					acc[e] += w * float64(v[row*s.Dim+e])
				}
			}
			for _, x := range acc {
				if sum > 0 {
					x /= sum
				}
				out = append(out, float32(x))
			}
		}
	}
	return out
}

// The benchmarks run; what they say on the fake driver means nothing.
func TestBenchmarksRun(t *testing.T) {
	opt := labOptions(t)
	shapes := []gpu.DecodeShape{
		{Batch: 1, KVHeads: 1, QHeads: 2, Dim: 64, Tokens: 128, BlockSize: 16, DType: compress.BF16},
		{Batch: 1, KVHeads: 1, QHeads: 2, Dim: 64, Tokens: 1 << 30, BlockSize: 16, DType: compress.BF16},
	}
	rates, times, err := gpu.BenchDecode(opt, shapes, []bool{true, false}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if rates.Within <= 0 || rates.In <= 0 || rates.Out <= 0 {
		t.Errorf("rates %+v", rates)
	}
	if len(times) != 2 || times[0].Step <= 0 || times[0].Skipped || !times[1].Skipped {
		t.Errorf("times %+v", times)
	}
	if _, err := gpu.Copies(opt, 1<<20, 2); err != nil {
		t.Error(err)
	}
}
