package gate

import "math"

// forget is the weight that one observation takes from all before it: about the last 50 count.
const forget = 0.02

// average is a mean that forgets; the first observations weigh as in a plain mean.
type average struct{ value, weight float64 }

func (a *average) add(x float64) {
	a.weight = a.weight*(1-forget) + 1
	a.value += (x - a.value) / a.weight
}

func (a *average) or(def float64) float64 {
	if a.weight == 0 {
		return def
	}
	return a.value
}

// line is a least-squares fit of y over x that forgets: y = at0 + slope x.
type line struct{ n, x, y, xx, xy float64 }

func (l *line) add(x, y float64) {
	const keep = 1 - forget
	l.n, l.x, l.y = l.n*keep+1, l.x*keep+x, l.y*keep+y
	l.xx, l.xy = l.xx*keep+x*x, l.xy*keep+x*y
}

// slope is never negative: a longer context does not make a step faster. It is false while the lengths seen are too much
// alike to tell (standard deviation below a tenth of their mean).
func (l *line) slope() (float64, bool) {
	if l.n < minSteps {
		return 0, false
	}
	mean := l.x / l.n
	variance := l.xx/l.n - mean*mean
	if !(variance > 0) || math.Sqrt(variance) < 0.1*mean {
		return 0, false
	}
	return max(0, (l.xy/l.n-mean*l.y/l.n)/variance), true
}

// learnEvery: one of so many requests is left exact while the time of a step is not known.
const learnEvery = 4

// minSteps are the replies, and minPages the pages, without which nothing is predicted.
const (
	minSteps = 8
	minPages = 3
)

// model is what has been learnt of one model.
type model struct {
	output        average // tokens of an answer
	step          line    // seconds per output token over tokens of context
	bytesPerToken average // of KV
	secondsPerKV  average // seconds per byte of page: moving, merging, storing
	requests      uint64  // that do not pay, for probes
	exact         uint64  // that pay or are not known to, for baselines
	used          uint64  // when last, for eviction
}
