package eval_test

import (
	"context"
	"math"
	"testing"

	"github.com/semproxy/semproxy/eval"
)

// windowIDs is the beginning of one of the shipped contexts.
func windowIDs(t *testing.T, seed, n int) []int32 {
	t.Helper()
	cases, err := eval.ParseRecall(readFile(t, "../configs/eval/recall.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return cases[seed].Context[:n]
}

// What a repetition looks at is, by its definition, the largest weight that any of its queries gives a token of the context.
func TestRepeatLooksAsItsQueriesDo(t *testing.T) {
	m := loadModel(t, "../configs/eval")
	s, ids := m.NewSession(2), windowIDs(t, 0, 150)
	cache, err := s.Prefill(ids, eval.Want{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Repeat(ids, cache)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := s.Prefill(append(append([]int32(nil), ids...), ids...), eval.Want{Queries: len(ids)})
	if err != nil {
		t.Fatal(err)
	}
	c, n, d := &m.Config, len(ids), m.Config.HeadDim
	for l := range c.Layers {
		for h := range c.Heads {
			want := make([]float64, n)
			for q := h * c.QHeads / c.Heads; q < (h+1)*c.QHeads/c.Heads; q++ {
				for i := range n {
					query, p := whole.Last.Of(l, q)[i*d:(i+1)*d], whole.Full.Plane(l, h)
					sum, weights := 0.0, make([]float64, n+i+1)
					for j := range weights {
						for k, x := range query {
							weights[j] += float64(x) * float64(p.K[j*eval.Stride(d)+k]) / math.Sqrt(float64(d))
						}
						weights[j] = math.Exp(weights[j])
						sum += weights[j]
					}
					for j := range want {
						want[j] = max(want[j], weights[j]/sum)
					}
				}
			}
			for j, x := range want {
				// The context's keys were rounded to the model's type before the repetition, those of the whole after it.
				if y := float64(got[(l*c.Heads+h)*n+j]); math.Abs(x-y) > 0.02 {
					t.Fatalf("layer %d head %d token %d: %v, want %v", l, h, j, y, x)
				}
			}
		}
	}
}

// The heads that need their tokens are the same in other texts: else the weights would be of no use.
func TestHeadWeightsAreTheModels(t *testing.T) {
	m := loadModel(t, "../configs/eval")
	measure := func(seeds ...int) (out []float64) {
		c := eval.Calibration{Ratio: 0.25}
		for _, s := range seeds {
			c.Texts = append(c.Texts, windowIDs(t, s, 360))
		}
		weights, err := eval.HeadWeights(context.Background(), m, &c)
		if err != nil {
			t.Fatal(err)
		}
		for _, heads := range weights {
			out = append(out, heads...)
		}
		return out
	}
	a, b := measure(0, 1), measure(2, 3)
	mean, dot, aa, bb := 0.0, 0.0, 0.0, 0.0
	for i := range a {
		mean += a[i] / float64(len(a))
		dot += (a[i] - 1) * (b[i] - 1)
		aa += (a[i] - 1) * (a[i] - 1)
		bb += (b[i] - 1) * (b[i] - 1)
	}
	if len(a) != 10 || math.Abs(mean-1) > 0.05 || aa < 0.5 {
		t.Fatalf("got weights %v, want one for each of 10 heads, one on average, not all alike", a)
	}
	if r := dot / math.Sqrt(aa*bb); r < 0.75 {
		t.Errorf("weights %.2f of some texts and %.2f of others correlate by %.2f, want 0.75", a, b, r)
	}
}
