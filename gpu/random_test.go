//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
)

// Every type of element, head size and rotation that the kernels take, on random pages.
func TestRandomPagesOfEveryShape(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := func(dim int) compress.Rope { return compress.Rope{Type: "default", Theta: 10000, Dim: dim} }
	linear, llama, yarn, ntk := rope(128), rope(64), rope(64), rope(64)
	linear.Type, linear.Factor = "linear", 4
	llama.Type, llama.Factor, llama.LowFreq, llama.HighFreq, llama.OriginalMaxTok, llama.Theta = "llama3", 8, 1, 4, 8192, 500000
	yarn.Type, yarn.Factor, yarn.OriginalMaxTok = "yarn", 4, 4096
	ntk.Type, ntk.Factor = "ntk", 2
	inter := rope(64)
	inter.Interleaved = true
	partial := rope(32)
	interPartial := rope(32)
	interPartial.Interleaved = true
	for i, s := range []shape{
		{1, 2, 300, 64, compress.F32, rope(64)},
		{2, 1, 300, 64, compress.F16, llama},
		{1, 2, 300, 128, compress.BF16, rope(128)},
		{1, 1, 257, 128, compress.F16, linear},
		{1, 1, 300, 256, compress.BF16, rope(256)},
		{1, 2, 250, 80, compress.F16, partial},
		{1, 1, 300, 96, compress.F32, rope(96)},
		{1, 2, 300, 64, compress.F32, inter},
		{1, 1, 300, 80, compress.F16, interPartial},
		{1, 2, 300, 64, compress.F32, yarn},
		{1, 1, 300, 16, compress.F32, rope(16)},
		{1, 2, 300, 64, compress.F32, ntk},
		{1, 2, 300, 64, compress.F32, compress.Rope{Type: "none"}},
		{1, 2, 300, 64, compress.F8E4M3, rope(64)},
		{1, 2, 300, 64, compress.F8E5M2, rope(64)},
	} {
		in := random(uint64(i), s)
		if i%2 == 1 || s.dim == 16 { // many queries of few elements differ more than a fold allows
			withQueries(in, 2*s.heads, 1+3*i)
		}
		all := map[string]compress.Options{"semantic": compress.Semantic(), "weighted": compress.Weighted()}
		if name := "equal shared"; in.Q == nil {
			all[name] = methods()[name]
		} else {
			maps.Copy(all, learning())
		}
		for name, opt := range all {
			opt.Ratio = 0.3
			same(t, fmt.Sprintf("%+v, %s", s, name), cpu, dev, in, &opt)
		}
	}
}

// The edges of a page: few tokens, no boundary, all protected, one long chunk, a budget that only longer chunks meet.
func TestEdgesOfAPage(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 64}
	base := shape{1, 2, 400, 64, compress.F32, rope}
	for name, row := range map[string]struct {
		page func() *compress.Input
		opt  func(o *compress.Options)
	}{
		"37 tokens":     {func() *compress.Input { s := base; s.tokens = 60; return random(1, s) }, func(*compress.Options) {}},
		"no boundary":   {func() *compress.Input { in := random(2, base); in.Boundary = nil; return in }, func(*compress.Options) {}},
		"all protected": {func() *compress.Input { in := random(3, base); in.Protect = ones(400); return in }, func(*compress.Options) {}},
		"some protected": {func() *compress.Input {
			in := random(4, base)
			in.Protect = make([]byte, 400)
			for i := 100; i < 130; i++ {
				in.Protect[i] = 1
			}
			return in
		}, func(*compress.Options) {}},
		"chunks of one":            {func() *compress.Input { return random(5, base) }, func(o *compress.Options) { o.ChunkMin, o.ChunkMax, o.Budget, o.ByPosition = 1, 1, compress.Fixed, true }},
		"longer chunks are needed": {func() *compress.Input { return random(6, base) }, func(o *compress.Options) { o.ChunkMin, o.ChunkMax, o.Ratio, o.Budget = 2, 4, 0.15, compress.Equal }},
		"longer chunks are needed, layered": {func() *compress.Input { return random(7, base) }, func(o *compress.Options) {
			o.ChunkMin, o.ChunkMax, o.Ratio, o.Budget, o.Granule = 2, 4, 0.15, compress.Layered, 8
		}},
		"more granules than tokens": {func() *compress.Input { return random(7, base) }, func(o *compress.Options) {
			o.Ratio, o.Budget, o.Granule = 0.6, compress.Layered, 150
		}},
		"a chunk of 1024": {func() *compress.Input { s := base; s.tokens = 1100; in := random(8, s); in.Boundary = nil; return in }, func(o *compress.Options) { o.ChunkMin, o.ChunkMax = 1024, 1024 }},
		"never enough":    {func() *compress.Input { return random(9, base) }, func(o *compress.Options) { o.Ratio, o.Exact = 0.01, 1 }},
		"threshold 1":     {func() *compress.Input { return random(10, base) }, func(o *compress.Options) { o.Budget, o.Threshold = compress.Fixed, 1 }},
		"threshold -1":    {func() *compress.Input { return random(11, base) }, func(o *compress.Options) { o.Budget, o.Threshold = compress.Fixed, -1 }},
		"equal tokens": {func() *compress.Input {
			in := random(12, base)
			row := 64 * 4
			for i := range 2 * 400 {
				copy(in.V[i*row:(i+1)*row], in.V[:row])
				if i%2 == 1 {
					copy(in.K[i*row:(i+1)*row], in.K[(i-1)*row:])
				}
			}
			in.Rope = compress.Rope{Type: "none"}
			return in
		}, func(*compress.Options) {}},
		"all alike": {func() *compress.Input {
			s := base
			s.heads, s.tokens = 1, 700
			in := random(14, s)
			clear(in.K)
			return in
		}, func(o *compress.Options) { o.Ratio, o.Exact = 0.8, 0.9 }},
		"zero keys": {func() *compress.Input { in := random(13, base); clear(in.K[:len(in.K)/2]); return in }, func(*compress.Options) {}},
	} {
		opt := compress.Semantic()
		opt.Ratio = 0.4
		row.opt(&opt)
		same(t, name, cpu, dev, row.page(), &opt)
	}
}

func ones(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 1
	}
	return b
}

// Exact tokens chosen by the attention that the page's queries give them.
func TestExactTokensThatTheQueriesLookAt(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 64}
	strided := withQueries(random(3, shape{1, 2, 300, 64, compress.F16, rope}), 4, 5)
	strided.QPositions = strided.Positions[293:298]
	strided.QPositions = append([]int32{strided.Positions[3], strided.Positions[70]}, strided.QPositions[2:]...)
	early := withQueries(random(3, shape{1, 2, 300, 64, compress.F16, rope}), 4, 2)
	early.QPositions = early.Positions[100:102]
	for name, in := range map[string]*compress.Input{
		"real":     realPages(t)["kjv"],
		"few":      withQueries(random(1, shape{1, 2, 300, 64, compress.F32, rope}), 2, 1),
		"many, f8": withQueries(random(2, shape{2, 1, 250, 64, compress.F8E4M3, rope}), 3, 11),
		"strided":  strided,
		"not last": early,
	} {
		for _, shared := range []bool{false, true} {
			opt := compress.Hybrid()
			opt.Ratio, opt.Shared = 0.3, shared
			same(t, name, cpu, dev, in, &opt)
			opt.Across, opt.Budget = true, compress.Layered
			same(t, name+", across", cpu, dev, in, &opt)
		}
	}
}

// Attention over the originals and over the cores is the CPU's, whether it is asked for with the page or apart.
func TestAttentionIsTheCPUs(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 128}
	pages := map[string]*compress.Input{
		"real":    realPages(t)["kjv"],
		"128":     withQueries(random(1, shape{2, 2, 200, 128, compress.BF16, rope}), 6, 9),
		"256, f8": withQueries(random(2, shape{1, 2, 150, 256, compress.F8E4M3, rope}), 2, 1),
	}
	for name, in := range pages {
		for _, opt := range []compress.Options{compress.Semantic(), compress.Hybrid(), learning()["folded"], learning()["folded weighted"]} {
			opt.Ratio = 0.35
			if opt.Fold != opt.Fit {
				opt.FP8 = compress.F8E4M3
			}
			var res, own compress.Result
			var full, got, wantFull, wantGot, apart compress.Attention
			ctx := context.Background()
			_, err := dev.Measure(ctx, in, in, &opt, &res, &full, &got)
			for _, err := range []error{err, cpu.Attend(ctx, in, nil, &wantFull), cpu.Attend(ctx, in, &res, &wantGot)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			relative(t, name+": originals", &full, &wantFull)
			relative(t, name+": cores", &got, &wantGot)
			if err := dev.Attend(ctx, in, nil, &apart); err != nil {
				t.Fatal(err)
			}
			relative(t, name+": originals, apart", &apart, &wantFull)
			if err := dev.Attend(ctx, in, &res, &apart); err != nil {
				t.Fatal(err)
			}
			relative(t, name+": cores, apart", &apart, &wantGot)
			if err := cpu.Compress(ctx, in, &opt, &own); err != nil {
				t.Fatal(err)
			}
			compare(t, name, in, &res, &own)
		}
	}
}

func relative(t *testing.T, what string, got, want *compress.Attention) {
	t.Helper()
	if got.Layers != want.Layers || got.Heads != want.Heads || got.Window != want.Window || got.Dim != want.Dim || len(got.Out) != len(want.Out) {
		t.Errorf("%s: another shape", what)
		return
	}
	diff, all := 0.0, 0.0
	for i, w := range want.Out {
		e := float64(got.Out[i]) - float64(w)
		diff += e * e
		all += float64(w) * float64(w)
	}
	if r := math.Sqrt(diff / all); !(r < 1e-4) {
		t.Errorf("%s: relative error %v, want below 1e-4", what, r)
	}
}
