package compress_test

import (
	"context"
	"math"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/oracle"
)

var ropes = map[string]compress.Rope{
	"default":     {Type: "default", Theta: 10000, Dim: 64},
	"none":        {Type: "none"},
	"partial":     {Type: "default", Theta: 10000, Dim: 32},
	"interleaved": {Type: "default", Theta: 10000, Dim: 64, Interleaved: true},
	"linear":      {Type: "linear", Theta: 10000, Dim: 64, Factor: 4},
	"ntk":         {Type: "ntk", Theta: 10000, Dim: 64, Factor: 4},
	"yarn":        {Type: "yarn", Theta: 10000, Dim: 64, Factor: 4, OriginalMaxTok: 2048},
	"llama3":      {Type: "llama3", Theta: 500000, Dim: 64, Factor: 8, LowFreq: 1, HighFreq: 4, OriginalMaxTok: 8192},
}

// Keys that were rotated by the model come back to what they were: a page of equal keys merges into cores that are equal
// to the key rotated to the core's position, whatever the kind of rotation.
func TestMergedKeysFollowTheRotation(t *testing.T) {
	c := compress.New(1)
	defer c.Close()
	for name, rope := range ropes {
		t.Run(name, func(t *testing.T) {
			freq, err := rope.Frequencies()
			if err != nil {
				t.Fatal(err)
			}
			const n, d = 300, 64
			base := make([]float64, d)
			for i := range base {
				base[i] = math.Sin(float64(i*i) + 1)
			}
			at := func(pos float64) []float64 {
				x := append([]float64(nil), base...)
				for i, f := range freq {
					a, b := i, i+len(freq)
					if rope.Interleaved {
						a, b = 2*i, 2*i+1
					}
					s, co := math.Sincos(f * pos)
					x[a], x[b] = x[a]*co-x[b]*s, x[b]*co+x[a]*s
				}
				return x
			}
			in := &compress.Input{DType: compress.F32, Layers: 1, Heads: 1, Tokens: n, Dim: d, Rope: rope, Positions: make([]int32, n)}
			for i := range n {
				in.Positions[i] = int32(5000 + i + 7*(i/100)) // with gaps
				in.K = appendRow(in.K, at(float64(in.Positions[i])), compress.F32)
				in.V = appendRow(in.V, base, compress.F32)
			}
			opt := compress.Semantic()
			opt.Ratio = 0.2
			var res compress.Result
			if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
				t.Fatal(err)
			}
			keys := tensor{DType: "F32", data: res.K}.floats()
			for i := range int(res.Slots[0]) {
				want := at(float64(res.Positions[i]))
				for k, w := range want {
					if got := float64(keys[i*d+k]); math.Abs(got-w) > 2e-3 {
						t.Fatalf("core %d of %d tokens at %v, dim %d: %v, want %v", i, res.Counts[i], res.Positions[i], k, got, w)
					}
				}
			}
			if res.KeySimilarity[0] < 0.9999 {
				t.Errorf("key similarity %v for equal keys, want 1", res.KeySimilarity[0])
			}
		})
	}
}

// The fast path and the oracle agree on pages that no file holds the answer for.
func TestCompressorAgreesWithTheOracleOnRandomPages(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	for name, rope := range ropes {
		in := synthetic(2, 2, 400, 64, compress.F32)
		in.Rope = rope
		freq, err := rope.Frequencies()
		if err != nil {
			t.Fatal(err)
		}
		flat := tensor{DType: "F32", data: in.K}.floats()
		values := tensor{DType: "F32", data: in.V}.floats()
		p := &oracle.Page{Positions: in.Positions, Boundary: in.Boundary, Freq: freq, Pairs: rope.Interleaved,
			K: nest(flat, in), V: nest(values, in)}
		for set, opt := range variants() {
			opt.Ratio = 0.3
			var res compress.Result
			if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
				t.Fatal(err)
			}
			for l, heads := range oracle.Compress(p, opt) {
				for h, want := range heads {
					plane := l*in.Heads + h
					differ := 0
					for i, label := range want.Label {
						if res.Assign[plane*in.Tokens+opt.Sinks+i] != int32(label+opt.Sinks) {
							differ++
						}
					}
					// A similarity within float32's rounding of the threshold, or two centralities within it of each other,
					// may fall the other way; that moves a few tokens and, with them, the numbers of the cores after them.
					if int(res.Thresholds[plane]) != want.Threshold || int(res.Slots[plane]) != len(want.Count) {
						t.Errorf("%s, %s, layer %d head %d: threshold %d and %d cores, want %d and %d", name, set, l, h,
							res.Thresholds[plane], res.Slots[plane], want.Threshold, len(want.Count))
					} else if differ > 0 {
						t.Logf("%s, %s, layer %d head %d: %d of %d labels differ", name, set, l, h, differ, len(want.Label))
						if differ > len(want.Label)/20 {
							t.Errorf("%s, %s, layer %d head %d: %d labels differ, want nearly none", name, set, l, h, differ)
						}
					}
				}
			}
		}
	}
}

// nest cuts [layers, heads, tokens, dim] into slices.
func nest(x []float32, in *compress.Input) [][][][]float64 {
	out := make([][][][]float64, in.Layers)
	for l := range out {
		out[l] = make([][][]float64, in.Heads)
		for h := range out[l] {
			out[l][h] = make([][]float64, in.Tokens)
			for i := range out[l][h] {
				row := make([]float64, in.Dim)
				for k := range row {
					row[k], x = float64(x[0]), x[1:]
				}
				out[l][h][i] = row
			}
		}
	}
	return out
}
