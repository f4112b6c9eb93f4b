package verify

import (
	"math/rand/v2"
	"testing"
)

// run samples a profile of which compression changes a share of the answers, and the engine another of itself, and says after how
// many samples it was stepped back; 0: it was not.
func run(r *rand.Rand, changed, noise, most float64, samples int) int {
	t := &Counts{MaxChanged: most}
	for i := range samples {
		if t.add(Difference{Changed: r.Float64() < changed+noise}, Difference{Changed: r.Float64() < noise}) {
			return i + 1
		}
	}
	return 0
}

// A harmless profile is stepped back with at most the stated chance, over all looks together, at the worst share that is allowed.
func TestFalseAlarmsAreAsRareAsStated(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const trials = 300
	for _, c := range []struct{ changed, noise, most float64 }{{0, 0, 0.02}, {0.01, 0, 0.02}, {0.02, 0, 0.02}, {0.10, 0, 0.10}, {0, 0.3, 0.02}, {0.02, 0.2, 0.02}} {
		alarms := 0
		for range trials {
			if run(r, c.changed, c.noise, c.most, 512) > 0 {
				alarms++
			}
		}
		t.Logf("%+v: %d of %d are false alarms", c, alarms, trials)
		if limit := trials*Alpha + 6; float64(alarms) > limit { // three standard deviations above
			t.Errorf("%+v: got %d false alarms of %d, want at most %.0f", c, alarms, trials, limit)
		}
	}
}

// A harmful profile is found within a number of samples that does not surprise.
func TestHarmIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const trials = 100
	for _, c := range []struct {
		changed, noise, most float64
		within               int
	}{{1, 0, 0.02, 16}, {0.5, 0, 0.02, 64}, {0.2, 0, 0.02, 256}, {0.1, 0, 0.02, 512}, {0.5, 0.1, 0.02, 128}} {
		found := 0
		for range trials {
			if n := run(r, c.changed, c.noise, c.most, c.within); n > 0 {
				found++
			}
		}
		t.Logf("%+v: %d of %d are found", c, found, trials)
		if found < trials*95/100 {
			t.Errorf("%+v: got %d of %d found, want 95 %%", c, found, trials)
		}
	}
}

func TestWhatIsReported(t *testing.T) {
	counts := &Counts{}
	for i := range 100 {
		counts.add(Difference{Changed: i%10 == 0, First: 4, Compared: 3, Logprob: 0.25}, Difference{})
	}
	if counts.Changed != 10 || counts.Share.Value != 0.1 || counts.Share.Low < 0.05 || counts.Share.Low > 0.056 || counts.Share.High < 0.17 || counts.Share.High > 0.18 {
		t.Errorf("got %+v, want 10 of 100 with Wilson's interval", counts.Share)
	}
	if counts.FirstDiff != 4 || counts.Logprob.Value != 0.25 || counts.Noise.Value != 0 || counts.Back {
		t.Errorf("got %+v", counts)
	}
}
