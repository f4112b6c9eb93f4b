//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
)

// important gives a page scores as a second prefill does: most tokens matter little.
func important(in *compress.Input) *compress.Input {
	r := rand.New(rand.NewPCG(5, 11))
	page := *in
	page.Importance = make([]float32, in.Layers*in.Heads*in.Tokens)
	for i := range page.Importance {
		page.Importance[i] = float32(math.Exp(3 * r.NormFloat64()))
	}
	return &page
}

// The page's own word on how much its tokens are needed sets their price and chooses the exact ones, as on the CPU.
func TestImportanceIsThePagesWord(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 64}
	for name, in := range map[string]*compress.Input{
		"real":   important(realPages(t)["kjv"]),
		"random": important(random(1, shape{1, 3, 300, 64, compress.BF16, rope})),
	} {
		for _, method := range []string{"weighted", "priced", "priced shared"} {
			opt := methods()[method]
			opt.Ratio = 0.3
			same(t, fmt.Sprintf("%s, %s", name, method), cpu, dev, in, &opt)
		}
		opt := methods()["weighted"]
		opt.Ratio, opt.Attention = 0.3, false
		same(t, name+", not asked", cpu, dev, in, &opt)
	}
}

// Heads that are dear keep more, alone and together, with and without other weights; weights of another model are refused.
func TestHeadWeights(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	in := realPages(t)["kjv"]
	weights := make([]float64, in.Layers*in.Heads)
	for i := range weights {
		weights[i] = 0.25 + float64(i)*0.37
	}
	for _, method := range []string{"semantic", "weighted", "adaptive shared", "granules"} {
		opt := methods()[method]
		opt.Ratio, opt.HeadWeights = 0.3, weights
		same(t, method, cpu, dev, in, &opt)
	}
	opt := compress.Semantic()
	opt.HeadWeights = weights[1:]
	var coded interface{ Code() string }
	other := onDevice(t, cpu, gpu.Options{Latency: -1})
	if err := other.Compress(t.Context(), in, &opt, new(compress.Result)); !errors.As(err, &coded) || coded.Code() != "policy.head_weights" {
		t.Errorf("got %v, want policy.head_weights", err)
	}
}

// Where a query was asked is part of what it is turned by.
func TestQueriesOfKnownPositions(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	rope := compress.Rope{Type: "default", Theta: 10000, Dim: 64}
	in := withQueries(random(1, shape{1, 2, 300, 64, compress.F32, rope}), 4, 6)
	in.QPositions = []int32{in.Positions[10], in.Positions[100], in.Positions[150], in.Positions[200], in.Positions[298], in.Positions[299]}
	for _, method := range []string{"priced", "weighted"} {
		opt := methods()[method]
		opt.Ratio = 0.3
		same(t, method, cpu, dev, in, &opt)
	}
}
