package compress_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/oracle"
)

// weighted are the options that weigh merges, and the budget by layers, for pages with that many KV heads in all layers.
func weighted(heads int) map[string]compress.Options {
	adaptive := compress.Weighted()
	layered := adaptive
	layered.Budget = compress.Layered
	shared := adaptive
	shared.Shared = true
	equal := adaptive
	equal.Budget, equal.Across = compress.Equal, false
	blocks := layered
	blocks.Granule = 16
	units := adaptive
	units.Granule = 16
	recency := adaptive
	recency.Distinct, recency.Attention = false, false
	distinct := adaptive
	distinct.Recency, distinct.Across = 0, false
	byHead, byHeadShared, byHeadLayered, byHeadAlone := adaptive, shared, layered, compress.Semantic()
	for _, o := range []*compress.Options{&byHead, &byHeadShared, &byHeadLayered, &byHeadAlone} {
		o.HeadWeights = headWeights(heads)
	}
	plain := compress.Semantic()
	plain.Budget = compress.Layered
	return map[string]compress.Options{"adaptive": adaptive, "layered": layered, "layered in blocks": blocks, "adaptive in blocks": units, "shared": shared, "equal": equal,
		"recency": recency, "distinct": distinct, "layered, not weighted": plain,
		"heads": byHead, "heads, shared": byHeadShared, "heads, layered": byHeadLayered, "heads alone": byHeadAlone}
}

// With the adaptive budget in granules the page has what its budget says, to the core, and every head whole granules of it.
func TestAdaptiveBudgetInGranules(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	for _, p := range pages(t) {
		for _, ratio := range []float64{0.5, 0.25} {
			opt := weighted(0)["adaptive in blocks"]
			opt.Ratio = ratio
			if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
				t.Fatal(err)
			}
			sum, want := 0, p.in.Layers*p.in.Heads*int(ratio*float64(p.in.Tokens))/opt.Granule*opt.Granule
			layers := map[int]bool{}
			for l := range p.in.Layers {
				layer := 0
				for _, s := range res.Slots[l*p.in.Heads:][:p.in.Heads] {
					layer += int(s)
					if int(s)%opt.Granule != 0 {
						t.Errorf("%s at %v: a head has %d cores, want whole granules of %d", p.name, ratio, s, opt.Granule)
					}
				}
				sum, layers[layer] = sum+layer, true
			}
			if sum != want {
				t.Errorf("%s at %v: %d cores, want %d", p.name, ratio, sum, want)
			}
			if len(layers) == 1 {
				t.Errorf("%s at %v: every layer has as many cores as each other", p.name, ratio)
			}
		}
	}
}

func headWeights(heads int) []float64 {
	out := make([]float64, heads)
	for i := range out {
		out[i] = []float64{1, 0.5, 4}[i%3]
	}
	return out
}

// Float32 and float64 may round a weight or a similarity to different sides of a step. So a plane in two hundred may differ,
// in a token or two.
func TestWeightedCompressionMatchesTheOracle(t *testing.T) {
	if raced {
		t.Skip("the oracle has no goroutines and takes minutes under the race detector; make race runs it without")
	}
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	planes, differ := 0, 0
	for _, p := range pages(t) {
		for name, opt := range weighted(p.in.Layers * p.in.Heads) {
			opt.Ratio = 0.25
			opt.Recent = 32 // 16 would leave a last chunk of two tokens on one page: equally central, so that rounding ranks them
			if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
				t.Fatal(err)
			}
			for l, heads := range oracle.Compress(p.widened(t), opt) {
				for h, want := range heads {
					plane := l*p.in.Heads + h
					planes++
					if got := int(res.Thresholds[plane]); got != want.Threshold {
						t.Errorf("%s, %s at %v, layer %d head %d: threshold %d, want %d", p.name, name, opt.Ratio, l, h, got, want.Threshold)
					}
					if got := int(res.Slots[plane]); got != len(want.Count) {
						t.Errorf("%s, %s at %v, layer %d head %d: %d cores, want %d", p.name, name, opt.Ratio, l, h, got, len(want.Count))
					}
					if !sameLabels(res.Assign[plane*p.in.Tokens+opt.Sinks:], want.Label, opt.Sinks) {
						differ++
					}
				}
			}
		}
	}
	if differ*200 > planes {
		t.Errorf("%d of %d planes are clustered differently, want one in 200 at most", differ, planes)
	}
}

func sameLabels(assign []int32, want []int, sinks int) bool {
	for i, label := range want {
		if int(assign[i])-sinks != label {
			return false
		}
	}
	return true
}

func TestWeightedPropertiesHoldForEveryShape(t *testing.T) {
	dtypes := []compress.DType{compress.F32, compress.BF16, compress.F8E4M3}
	if raced {
		dtypes = dtypes[:1] // make race runs the others without it
	}
	for name, opt := range weighted(4) {
		for _, ratio := range []float64{0.05, 0.25, 0.9, 1} {
			t.Run(fmt.Sprintf("%s/%v", name, ratio), func(t *testing.T) {
				c := compress.New(3) // with no memory of other options
				defer c.Close()
				var res compress.Result
				opt.Ratio = ratio
				for _, n := range []int{1, 2, 5, 20, 21, 22, 37, 101, 300} {
					for _, dtype := range dtypes {
						in := synthetic(2, 2, n, 32, dtype)
						if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
							t.Fatal(err)
						}
						check(t, in, &opt, &res)
					}
				}
			})
		}
	}
}

// With the layered budget all layers have the same number of cores, their heads what they need, in whole granules.
func TestLayeredBudgetGivesLayersTheSameAndHeadsWhatTheyNeed(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	for _, p := range pages(t) {
		for _, granule := range []int{1, 16} {
			for _, ratio := range []float64{0.5, 0.25} {
				opt := weighted(0)["layered"]
				opt.Ratio, opt.Granule = ratio, granule
				if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
					t.Fatal(err)
				}
				uneven := false
				total := p.in.Heads * int(ratio*float64(p.in.Tokens)) / granule * granule
				for l := range p.in.Layers {
					sum := 0
					for _, s := range res.Slots[l*p.in.Heads:][:p.in.Heads] {
						sum += int(s)
						uneven = uneven || s != res.Slots[l*p.in.Heads]
						if int(s)%granule != 0 {
							t.Errorf("%s at %v: a head has %d cores, want whole granules of %d", p.name, ratio, s, granule)
						}
					}
					if sum != total {
						t.Errorf("%s at %v in %d: layer %d has %d cores, want %d", p.name, ratio, granule, l, sum, total)
					}
				}
				if !uneven {
					t.Errorf("%s at %v: the heads of every layer have as many cores as each other", p.name, ratio)
				}
			}
		}
	}
}

// What the weights are for: recent tokens are merged less than old ones.
func TestRecentTokensAreMergedLess(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var plain, recent compress.Result
	for _, p := range pages(t) {
		a, b := compress.Semantic(), compress.Semantic()
		a.Ratio, b.Ratio, b.Recency = 0.25, 0.25, 84
		if err := c.Compress(context.Background(), &p.in, &a, &plain); err != nil {
			t.Fatal(err)
		}
		if err := c.Compress(context.Background(), &p.in, &b, &recent); err != nil {
			t.Fatal(err)
		}
		if got, want := secondHalf(&p.in, &recent), secondHalf(&p.in, &plain); got <= want {
			t.Errorf("%s: %d cores stand for the second half, want more than the %d without weights", p.name, got, want)
		}
	}
}

// A head that weighs more keeps more, and the total stays.
func TestHeadsThatWeighMoreKeepMore(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var even, got compress.Result
	for _, p := range pages(t) {
		for _, budget := range []compress.Budget{compress.Adaptive, compress.Layered} {
			opt := compress.Weighted()
			opt.Ratio, opt.Budget = 0.25, budget
			if err := c.Compress(context.Background(), &p.in, &opt, &even); err != nil {
				t.Fatal(err)
			}
			for g := range even.Slots {
				opt.HeadWeights = slices.Repeat([]float64{1}, len(even.Slots))
				if g == 0 { // neutral weights change nothing
					if err := c.Compress(context.Background(), &p.in, &opt, &got); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got.Slots, even.Slots) || !bytes.Equal(got.K, even.K) {
						t.Errorf("%s, %s: weights of 1 change the page", p.name, budget)
					}
				}
				for _, weight := range []float64{4, 0.25} {
					opt.HeadWeights[g] = weight
					if err := c.Compress(context.Background(), &p.in, &opt, &got); err != nil {
						t.Fatal(err)
					}
					more, less := got.Slots[g], even.Slots[g]
					if weight < 1 {
						more, less = less, more
					}
					if more < less {
						t.Errorf("%s, %s: head %d has %d cores at weight %v, %d at 1", p.name, budget, g, got.Slots[g], weight, even.Slots[g])
					}
					if kept := got.Kept(); kept > 0.25 || kept < 0.24 {
						t.Errorf("%s, %s: head %d at %v: %.4f of the page is kept, want 0.25", p.name, budget, g, weight, kept)
					}
				}
			}
		}
	}
}

// secondHalf is the number of cores at positions in the second half of the page.
func secondHalf(in *compress.Input, r *compress.Result) int {
	n := 0
	for i, count := range r.Counts {
		if count > 0 && r.Positions[i] > float32(in.Positions[in.Tokens/2]) {
			n++
		}
	}
	return n
}

func TestWeightsWithoutMeaningAreRefused(t *testing.T) {
	for name, change := range map[string]func(*compress.Options){
		"across equal":      func(o *compress.Options) { o.Budget = compress.Equal },
		"negative recency":  func(o *compress.Options) { o.Recency = -1 },
		"huge recency":      func(o *compress.Options) { o.Recency = 1e9 },
		"distinct attended": func(o *compress.Options) { o.Keep = compress.Attended },
		"weighted drop":     func(o *compress.Options) { o.Budget, o.Across, o.Rest = compress.Equal, false, compress.Drop },
		"weighted fixed":    func(o *compress.Options) { o.Budget, o.Across = compress.Fixed, false },
		"heads equal":       func(o *compress.Options) { o.Budget, o.Across, o.HeadWeights = compress.Equal, false, []float64{1} },
		"heads of nothing":  func(o *compress.Options) { o.HeadWeights = []float64{1, 0} },
		"heads of a lot":    func(o *compress.Options) { o.HeadWeights = []float64{65} },
		"heads of NaN":      func(o *compress.Options) { o.HeadWeights = []float64{math.NaN()} },
	} {
		opt := compress.Weighted()
		change(&opt)
		var coded interface{ Code() string }
		if err := opt.Check(); !errors.As(err, &coded) || coded.Code() != "policy.bad_option" {
			t.Errorf("%s: got %v, want policy.bad_option", name, err)
		}
	}
}

func TestHeadWeightsOfAnotherModelAreRefused(t *testing.T) {
	c := compress.New(1)
	defer c.Close()
	opt := compress.Weighted()
	opt.HeadWeights = []float64{1, 1, 1}
	var res compress.Result
	var coded interface{ Code() string }
	if err := c.Compress(context.Background(), synthetic(2, 2, 100, 32, compress.F32), &opt, &res); !errors.As(err, &coded) || coded.Code() != "policy.head_weights" {
		t.Errorf("got %v, want policy.head_weights", err)
	}
}

func TestWeightedPagesAreTheSameOnAnyNumberOfWorkers(t *testing.T) {
	in := synthetic(3, 4, 500, 64, compress.F16)
	for name, opt := range weighted(12) {
		opt.Ratio = 0.25
		var want compress.Result
		for workers := 1; workers <= 4; workers++ {
			c := compress.New(workers)
			var got compress.Result
			err := c.Compress(context.Background(), in, &opt, &got)
			c.Close()
			if err != nil {
				t.Fatal(err)
			}
			if workers == 1 {
				want = got
			}
			if !bytes.Equal(got.K, want.K) || !bytes.Equal(got.V, want.V) || !slices.Equal(got.Assign, want.Assign) {
				t.Errorf("%s: %d workers give another result than one", name, workers)
			}
		}
	}
}
