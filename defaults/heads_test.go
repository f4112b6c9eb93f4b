package defaults

import (
	"math"
	"slices"
	"testing"
)

func TestHeadWeightsFade(t *testing.T) {
	for _, k := range []struct {
		model               string
		from, whole         float64
		first, layers, head int
		weights             [][]float64
	}{
		{"HuggingFaceTB/SmolLM2-135M-Instruct", 0.5, 0.25, 18, 2, 2, smollm2Heads},
		{"Qwen2.5-Coder-0.5B-Instruct", 0.25, 0.125, 0, 1, 1, qwenHeads},
	} {
		heads := len(k.weights[0])
		at := func(ratio float64) []float64 {
			return HeadWeights(nil, k.model, k.first, k.layers, heads, ratio, false)
		}
		if got := at(k.from); got != nil || HeadsVersion(k.model, k.from) != "" {
			t.Errorf("%s at %v: got %v, want none", k.model, k.from, got)
		}
		whole := at(k.whole)
		if len(whole) != k.layers*heads || whole[k.head] != math.Round(k.weights[k.first][k.head]*1024)/1024 || HeadsVersion(k.model, k.whole) == "" {
			t.Fatalf("%s at %v: got %v, want the heads from layer %d on", k.model, k.whole, whole, k.first)
		}
		for i, w := range at(math.Sqrt(k.from * k.whole)) {
			if math.Abs(w-math.Sqrt(whole[i])) > 1e-2 {
				t.Errorf("%s half-way: head %d weighs %v, want the root of %v", k.model, i, w, whole[i])
			}
		}
		if got := at(0.01); got[k.head] != whole[k.head] {
			t.Errorf("%s at .01: got %v, want what counts in full", k.model, got)
		}
	}
}

// A page that brings its importance needs them at an eighth of the tokens, and not at a quarter.
func TestHeadsWeighLessWherePagesHaveTheirImportance(t *testing.T) {
	at := func(ratio float64, important bool) []float64 {
		return HeadWeights(nil, "smollm2", 0, 30, 3, ratio, important)
	}
	if got := at(0.25, true); got != nil {
		t.Errorf("at a quarter: got %v, want none", got)
	}
	if !slices.Equal(at(0.125, true), at(0.25, false)) || !slices.Equal(at(0.01, true), at(0.01, false)) {
		t.Error("at an eighth they do not count in full")
	}
	if got := HeadWeights(nil, "qwen05", 0, 24, 2, 0.1, true); got != nil {
		t.Errorf("Qwen's, which lose facts there: got %v, want none", got)
	}
}

func TestWeightsAreOfAModelsNameAndShape(t *testing.T) {
	for _, one := range []struct {
		model                string
		first, layers, heads int
		want                 bool
	}{
		{"smollm2-hf", 0, 30, 3, true},
		{"/models/SmolLM2-135M", 29, 1, 3, true},
		{"smollm2-135m", 29, 2, 3, false},
		{"smollm2-135m", -1, 2, 3, false},
		{"SmolLM2-360M", 0, 32, 5, false},
		{"qwen05-hf", 0, 24, 2, true},
		{"Qwen2.5-0.5B", 0, 24, 2, true},
		{"Qwen2.5-1.5B", 0, 24, 2, false},
		{"", 0, 1, 1, false},
	} {
		if got := HeadWeights(nil, one.model, one.first, one.layers, one.heads, 0.1, false) != nil; got != one.want {
			t.Errorf("%+v: got %v", one, got)
		}
	}
}

// The weights are in the bounds of a policy's, and what they are is in the keys of what they made.
func TestKnownWeightsAreWeights(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range known {
		for l, layer := range k.weights {
			for h, w := range layer {
				if len(layer) != len(k.weights[0]) || !(w >= 1.0/MaxHeadWeight && w <= MaxHeadWeight) {
					t.Errorf("%s: head %d/%d weighs %v", k.name, l, h, w)
				}
			}
		}
		seen[HeadsVersion(k.name, 0.1)] = true
	}
	if len(seen) != 2 || HeadsVersion("another", 0.1) != "" {
		t.Errorf("got versions %v and %q, want one for each of the two tables, none for another model", seen, HeadsVersion("another", 0.1))
	}
}
