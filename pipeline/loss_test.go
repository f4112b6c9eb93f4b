package pipeline

import "testing"

func TestTheExpectedLossRisesWithTheLookupErrorOnEveryModel(t *testing.T) {
	for model, curve := range lossCurves {
		last := -1.0
		for i := range 1200 {
			lost := expectedLoss(curve, float64(i)/1000)
			if lost < last || lost < 0 || lost > 1 {
				t.Fatalf("%s: %v is lost at %v, after %v", model, lost, float64(i)/1000, last)
			}
			last = lost
		}
		if expectedLoss(curve, 0) != 0 || last != 1 {
			t.Errorf("%s: %v and %v are lost at 0 and 1.2, want 0 and 1", model, expectedLoss(curve, 0), last)
		}
	}
}

// Nobody knows how an unknown model takes it, so it is judged no better than any that is known.
func TestAnUnknownModelIsExpectedToLoseNoLessThanAnyOther(t *testing.T) {
	unknown := lossCurve("my/own-model", nil)
	for model, curve := range lossCurves {
		for i := range 1000 {
			if x := float64(i) / 1000; expectedLoss(curve, x) > expectedLoss(unknown, x)+1e-9 {
				t.Fatalf("%s loses more than an unknown model at %v", model, x)
			}
		}
	}
}

func TestAModelIsKnownByItsName(t *testing.T) {
	for name, want := range map[string]float64{"HuggingFaceTB/SmolLM2-135M-Instruct": .198, "/models/smollm2-hf": .198, "Qwen/Qwen2.5-Coder-0.5B-Instruct": .019, "other": .345} {
		if got := expectedLoss(lossCurve(name, nil), 0.1); got < want-0.01 || got > want+0.01 {
			t.Errorf("%s: %v is lost at a lookup error of 0.1, want %v", name, got, want)
		}
	}
}
