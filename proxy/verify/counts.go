package verify

import "math"

// Alpha is the chance of stepping a profile back that changes no more answers than it may, over all looks at its samples together.
const Alpha = 0.01

// looks are how often it may be decided: when the samples have reached firstLook, and each time their number has doubled.
const (
	firstLook = 16
	looks     = 12
)

// z95 is the two-sided 95 % quantile of the normal distribution.
const z95 = 1.959964

// Counts is what the samples of one tenant and profile have shown.
type Counts struct {
	Tenant  string `json:"tenant"`
	Profile string `json:"profile"`
	Digest  string `json:"policyDigest"`

	Samples int `json:"samples"`
	Changed int `json:"changed"` // compressed answers that differ from the exact one
	Control int `json:"control"` // exact answers that differ from the exact one

	Share      Interval `json:"share"`           // of answers that compression changed
	Noise      Interval `json:"noise"`           // of those that change without it
	FirstDiff  float64  `json:"firstDifference"` // mean position of the first token that differs, in those that do
	Logprob    Interval `json:"logprobDifference"`
	MaxChanged float64  `json:"maxChanged"` // what the policy allows; 0: it only reports
	Back       bool     `json:"steppedBack"`
	Why        string   `json:"why,omitempty"`

	firstSum                 float64
	logN, logSum, logSquares float64
	nextLook                 int
}

// Interval is an estimate with its 95 % confidence interval.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// wilson is the score interval of k of n.
func wilson(k, n int) Interval {
	if n == 0 {
		return Interval{0, 0, 1}
	}
	p, m := float64(k)/float64(n), float64(n)
	d := 1 + z95*z95/m
	center := (p + z95*z95/(2*m)) / d
	half := z95 / d * math.Sqrt(p*(1-p)/m+z95*z95/(4*m*m))
	return Interval{p, max(0, center-half), min(1, center+half)}
}

// tail is the chance of k or more of n at a share of p.
func tail(k, n int, p float64) float64 {
	if k <= 0 || p >= 1 {
		return 1
	}
	if p <= 0 {
		return 0
	}
	sum := 0.0
	lgN, _ := math.Lgamma(float64(n + 1))
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(lgN - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return min(1, sum)
}

// add takes one sample: how the compressed answer and the control differ from the exact answer. It says whether the profile is to be
// stepped back now.
func (t *Counts) add(compressed, control Difference) bool {
	t.Samples++
	if compressed.Changed {
		t.Changed++
		t.firstSum += float64(compressed.First)
		t.FirstDiff = t.firstSum / float64(t.Changed)
	}
	if control.Changed {
		t.Control++
	}
	if compressed.Compared > 0 {
		t.logN++
		t.logSum += compressed.Logprob
		t.logSquares += compressed.Logprob * compressed.Logprob
		mean := t.logSum / t.logN
		half := z95 * math.Sqrt(max(0, t.logSquares/t.logN-mean*mean)/t.logN)
		t.Logprob = Interval{mean, max(0, mean-half), mean + half}
	}
	t.Share, t.Noise = wilson(t.Changed, t.Samples), wilson(t.Control, t.Samples)
	return t.look()
}

// look decides, at the samples at which it may be decided. The chance that is accepted is divided among the looks, so that looking
// often does not find by chance what is not there.
//
// What compression may change is at most some number of answers, but for half of the chance. What is changed beyond it would have
// to come from the engine, which does not repeat itself; then as many controls would have changed: the more of all these changes
// must be controls by the toss of a coin, but for the other half.
func (t *Counts) look() bool {
	if t.nextLook == 0 {
		t.nextLook = firstLook
	}
	if t.Back || t.MaxChanged <= 0 || t.Samples < t.nextLook {
		return false
	}
	t.nextLook *= 2
	const chance = Alpha / looks / 2
	allowed := 0
	for tail(allowed+1, t.Samples, t.MaxChanged) >= chance {
		allowed++
	}
	beyond := t.Changed - allowed
	if beyond <= 0 || tail(beyond, beyond+t.Control, 0.5) >= chance {
		return false
	}
	t.Back = true
	return true
}
