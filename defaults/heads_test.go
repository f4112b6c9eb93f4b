package defaults

import (
	"math"
	"testing"
)

func TestHeadWeightsFadeTowardsAQuarter(t *testing.T) {
	const model = "HuggingFaceTB/SmolLM2-135M-Instruct"
	at := func(ratio float64) []float64 { return HeadWeights(nil, model, 18, 2, 3, ratio) }
	if got := at(HeadsFrom); got != nil {
		t.Errorf("at %v: got %v, want none", HeadsFrom, got)
	}
	whole := at(HeadsWhole)
	if len(whole) != 6 || whole[2] != math.Round(smollm2Heads[18][2]*1024)/1024 {
		t.Fatalf("at %v: got %v, want the heads of layers 18 and 19", HeadsWhole, whole)
	}
	half := at(math.Sqrt(HeadsFrom * HeadsWhole))
	for i, w := range half {
		if math.Abs(w-math.Sqrt(whole[i])) > 1e-2 {
			t.Errorf("half-way head %d weighs %v, want the root of %v", i, w, whole[i])
		}
	}
	if got := at(0.01); got[2] != whole[2] {
		t.Errorf("at .01: got %v, want what counts in full", got)
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
		if got := headsOf(one.model, one.first, one.layers, one.heads) != nil; got != one.want {
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
		seen[HeadsVersion(k.name)] = true
	}
	if len(seen) != 2 || HeadsVersion("another") != "" {
		t.Errorf("got versions %v and %q, want one for each of the two tables, none for another model", seen, HeadsVersion("another"))
	}
}
