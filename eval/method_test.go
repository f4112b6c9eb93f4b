package eval_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/eval"
)

const shipped = "../configs/eval"

var (
	cacheOnce sync.Once
	cacheMade *eval.Cache
)

// shippedCache is the cache of the first shipped recall case: 864 tokens, 5 layers, 2 heads. It is read only.
func shippedCache(t *testing.T) *eval.Cache {
	t.Helper()
	cacheOnce.Do(func() { cacheMade = newShippedCache(t) })
	if cacheMade == nil {
		t.Fatal("no cache: an earlier test could not make it")
	}
	return cacheMade
}

func newShippedCache(t *testing.T) *eval.Cache {
	t.Helper()
	cases, err := eval.ParseRecall(readFile(t, shipped+"/recall.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := loadModel(t, shipped).NewSession(2).Prefill(cases[0].Context, eval.Want{Queries: 32, Mass: true})
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func TestEveryMethodKeepsItsBudgetTheSinksAndTheLatestTokens(t *testing.T) {
	cache := shippedCache(t)
	comp := compress.New(1)
	defer comp.Close()
	specs := append(eval.Names(), "snapkv:shared", "keydiff:sizes=semantic", "semantic:exact=0.5:budget=equal:shared+fp8", "weighted:heads=1/2/1/1/1/1/0.5/1/1/1", "paper+nobias")
	for _, spec := range specs {
		t.Run(spec, func(t *testing.T) {
			method, err := eval.Build(spec, comp)
			if err != nil {
				t.Fatal(err)
			}
			for _, ratio := range []float64{0.5, 0.125} {
				var out eval.Cores
				out.Reset(cache)
				if _, err := method.Compress(context.Background(), cache, ratio, &out); err != nil {
					t.Fatal(err)
				}
				want := ratio
				if spec == "none" {
					want = 1
				}
				if kept := out.Kept(cache.Tokens); kept > want+1e-9 || kept < want-0.02 {
					t.Errorf("ratio %v: got %v of the tokens, want %v or a little less", ratio, kept, want)
				}
				for i := range out.Planes {
					p, of := &out.Planes[i], &cache.Full.Planes[i]
					near(t, "first key", p.K[:64], of.K[:64], spec)
					near(t, "last value", p.V[(p.N-1)*64:p.N*64], of.V[(cache.Tokens-1)*64:cache.Tokens*64], spec)
					if p.Bias != nil && (len(p.Bias) != p.N || p.Bias[0] != 0) {
						t.Errorf("plane %d: got %d biases from %v, want %d from 0", i, len(p.Bias), p.Bias[0], p.N)
					}
				}
			}
		})
	}
}

// near allows FP8's rounding where the spec asks for it.
func near(t *testing.T, what string, got, want []float32, spec string) {
	t.Helper()
	top := 0.0
	for _, v := range want {
		top = max(top, math.Abs(float64(v)))
	}
	allowed := 0.0
	if len(spec) > 4 && spec[len(spec)-4:] == "+fp8" {
		allowed = top / 16
	}
	for i := range want {
		if d := math.Abs(float64(got[i] - want[i])); d > allowed {
			t.Fatalf("%s[%d]: got %v, want %v within %v", what, i, got[i], want[i], allowed)
		}
	}
}

func TestMergedCoresStandForAllTokens(t *testing.T) {
	cache := shippedCache(t)
	comp := compress.New(1)
	defer comp.Close()
	for _, spec := range []string{"semantic", "equal", "hybrid", "paper", "uniform", "plain-uniform"} {
		method, err := eval.Build(spec, comp)
		if err != nil {
			t.Fatal(err)
		}
		var out eval.Cores
		out.Reset(cache)
		if _, err := method.Compress(context.Background(), cache, 0.25, &out); err != nil {
			t.Fatal(err)
		}
		for i := range out.Planes {
			sum := 0.0
			for _, b := range out.Planes[i].Bias {
				sum += math.Exp(float64(b))
			}
			if math.Abs(sum-float64(cache.Tokens)) > 0.01 {
				t.Errorf("%s, plane %d: biases stand for %v tokens, want %d", spec, i, sum, cache.Tokens)
			}
		}
	}
}

// The plain readings keep the same tokens, and the emulated FP8 rounds to the same numbers, as compress does.
func TestCompressAgreesWithThePlainReadings(t *testing.T) {
	cache := shippedCache(t)
	comp := compress.New(1)
	defer comp.Close()
	for _, pair := range [][2]string{{"window", "plain-window"}, {"keynorm", "plain-keynorm"}, {"window+fp8", "plain-window+fp8"}} {
		var out [2]eval.Cores
		for i, spec := range pair {
			method, err := eval.Build(spec, comp)
			if err != nil {
				t.Fatal(err)
			}
			out[i].Reset(cache)
			if _, err := method.Compress(context.Background(), cache, 0.25, &out[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range out[0].Planes {
			if a, b := rowSet(&out[0].Planes[i]), rowSet(&out[1].Planes[i]); !slices.Equal(a, b) {
				t.Fatalf("plane %d: %s and %s keep different tokens: %d and %d", i, pair[0], pair[1], len(a), len(b))
			}
		}
	}
}

// rowSet is a plane's rows without their order, to within the last bits: scales may be rounded differently.
func rowSet(p *eval.Plane) []string {
	var out []string
	for r := range p.N {
		out = append(out, fmt.Sprintf("%.4g %.4g", p.K[r*64:(r+1)*64], p.V[r*64:(r+1)*64]))
	}
	slices.Sort(out)
	return out
}

func TestBytesCountBiasesAndScales(t *testing.T) {
	cache := shippedCache(t)
	comp := compress.New(1)
	defer comp.Close()
	const planes, row = 10, 2 * 64 * 2 // F16 keys and values
	for _, tc := range []struct {
		spec string
		want int
	}{
		{"window", planes * 432 * row},
		{"window+fp8", planes * (432*row/2 + 8)},
		{"random+fp8", planes * (432*row/2 + 8)},
		{"uniform", planes * 432 * (row + 4)},
		{"uniform+nobias", planes * 432 * row},
	} {
		method, err := eval.Build(tc.spec, comp)
		if err != nil {
			t.Fatal(err)
		}
		var out eval.Cores
		out.Reset(cache)
		if _, err := method.Compress(context.Background(), cache, 0.5, &out); err != nil {
			t.Fatal(err)
		}
		if got := out.Bytes(); got != tc.want {
			t.Errorf("%s: got %d bytes, want %d", tc.spec, got, tc.want)
		}
	}
}

func TestSpecsThatMeanNothingAreRefused(t *testing.T) {
	comp := compress.New(1)
	defer comp.Close()
	for spec, says := range map[string]string{
		"magic":                   `"magic" is not known`,
		"semantic:speed=2":        `"speed" is not known`,
		"semantic:exact=much":     "must be a number",
		"weighted:heads=1/much":   "must be numbers divided by /",
		"weighted:heads=1/0":      "must be in [1/64, 64]",
		"semantic:min=1.5":        "whole number",
		"semantic:exact=2":        "exact must be",
		"semantic:budget=large":   "budget must be one of adaptive, equal",
		"window:sinks=-1":         "must not be negative",
		"random:sinks=-1":         "must not be negative",
		"window:rest=burn":        "rest must be one of cluster, drop, stride",
		"keydiff:sizes=paper":     "sizes must be",
		"window+zip":              `modifier "zip"`,
		"plain-uniform:recent=-1": "must not be negative",
		"none:shared":             `"shared" is not known`,
	} {
		_, err := eval.Build(spec, comp)
		refused(t, err, "eval.method", says)
	}
}
