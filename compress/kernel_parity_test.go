package compress_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// sameCores is how far an element of K or V may lie from what plain Go gives. The sums differ in their last bits by order and
// by fused multiply-add, so a merged element may round to the neighbouring F16, which for the largest keys is 2^-7 away.
const sameCores = 2e-2

// A processor's kernels decide as the plain loops do, so that a build without assembly, or another machine, gives the same
// cores: on every page every token has the same core and every head the same threshold. A similarity that lies within
// rounding of a threshold could go either way; on these pages none does, so no difference is allowed for.
func TestEveryKernelSetGivesTheSameCores(t *testing.T) {
	sets := simd.All()[1:]
	if len(sets) == 0 {
		t.Log("this build has the plain loops only")
	}
	options := variants()
	options["semantic"] = compress.Semantic()
	if !raced {
		maps.Copy(options, methods())
	}
	ratios := []float64{0.5, 0.25, 0.125}
	if raced || testing.Short() {
		ratios = ratios[1:2]
	}
	plain := compress.NewWith(2, simd.Generic())
	defer plain.Close()
	fast := make([]*compress.Compressor, len(sets))
	for i, k := range sets {
		fast[i] = compress.NewWith(2, k)
		t.Cleanup(fast[i].Close)
	}
	var want, got compress.Result
	for _, p := range pages(t) {
		for name, opt := range options {
			for _, opt.Ratio = range ratios {
				if err := plain.Compress(context.Background(), &p.in, &opt, &want); err != nil {
					t.Fatal(err)
				}
				for _, c := range fast {
					if err := c.Compress(context.Background(), &p.in, &opt, &got); err != nil {
						t.Fatal(err)
					}
					sameAs(t, fmt.Sprintf("%s, %s, %s at %v", c.Device(), p.name, name, opt.Ratio), &got, &want)
				}
			}
		}
	}
}

func sameAs(t *testing.T, what string, got, want *compress.Result) {
	t.Helper()
	if !slices.Equal(got.Thresholds, want.Thresholds) {
		t.Fatalf("%s: thresholds %v, want %v", what, got.Thresholds, want.Thresholds)
	}
	for i, core := range got.Assign {
		if core != want.Assign[i] {
			t.Fatalf("%s: plane %d token %d is in core %d, want %d", what, i/got.Tokens, i%got.Tokens, core, want.Assign[i])
		}
	}
	if got.DType != want.DType || !slices.Equal(got.Counts, want.Counts) || !slices.Equal(got.Bias, want.Bias) {
		t.Fatalf("%s: type, counts or bias differ", what)
	}
	if got.DType == compress.F16 {
		within(t, what+": k", tensor{DType: "F16", data: got.K}.floats(), tensor{DType: "F16", data: want.K}.floats(), sameCores)
		within(t, what+": v", tensor{DType: "F16", data: got.V}.floats(), tensor{DType: "F16", data: want.V}.floats(), sameCores)
	}
}
