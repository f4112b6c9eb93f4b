package engineproof

import (
	"math"
	"slices"
)

// Difference is how far one answer is from another.
type Difference struct {
	Changed bool     `json:"changed"`
	First   int      `json:"first"`   // index of the first token that differs; -1: none
	Logprob *float64 `json:"logprob"` // mean absolute difference over the tokens that are alike from the beginning on; nil: not known
}

// Compare compares two answers token by token; where the engine names no tokens, byte by byte.
func Compare(a, b *Answer) Difference {
	d := Difference{First: -1}
	if len(a.Tokens) == 0 || len(b.Tokens) == 0 {
		if d.Changed = a.Text != b.Text; d.Changed {
			d.First = alike([]byte(a.Text), []byte(b.Text))
		}
		return d
	}
	n := alike(a.Tokens, b.Tokens)
	if d.Changed = n < max(len(a.Tokens), len(b.Tokens)); d.Changed {
		d.First = n
	}
	if n = min(n, len(a.Logprobs), len(b.Logprobs)); n > 0 {
		sum := 0.0
		for i := range n {
			sum += math.Abs(a.Logprobs[i] - b.Logprobs[i])
		}
		mean := sum / float64(n)
		d.Logprob = &mean
	}
	return d
}

// alike is how many elements are the same from the beginning on.
func alike[T comparable](a, b []T) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// z is that of a 95 % interval.
const z = 1.959964

// wilson is the 95 % interval of a share.
func wilson(hits, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	p, m := float64(hits)/float64(n), float64(n)
	mid, half := p+z*z/(2*m), z*math.Sqrt(p*(1-p)/m+z*z/(4*m*m))
	return max(0, (mid-half)/(1+z*z/m)), min(1, (mid+half)/(1+z*z/m))
}

// paired is the mean of what each prompt lost (1, 0 or -1) and its 95 % interval. The interval is never narrower than what one
// more prompt that is lost, or gained, would change: a few prompts that are all alike prove little.
func paired(lost []float64) (mean, low, high float64) {
	n := float64(len(lost))
	if n == 0 {
		return 0, -1, 1
	}
	for _, x := range lost {
		mean += x / n
	}
	variance := 0.0
	for _, x := range lost {
		variance += (x - mean) * (x - mean) / max(1, n-1)
	}
	half := max(z*math.Sqrt(variance/n), 1/n)
	return mean, mean - half, mean + half
}

func median(x []float64) float64 {
	if len(x) == 0 {
		return math.NaN()
	}
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
