package eval_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/semproxy/semproxy/eval"
)

// The pages were made by another implementation from the same model: keys, values, and the queries of the 16 tokens that
// follow.
func TestPrefillGivesThePagesKeysAndValues(t *testing.T) {
	dir := needShared(t)
	m := loadModel(t, filepath.Join(dir, "tinylm"))
	for _, name := range []string{"man", "recall", "kjv", "kjv_long", "kjv_facts"} {
		t.Run(name, func(t *testing.T) {
			page := tensors(t, filepath.Join(dir, "pages", name+".page.safetensors"))
			s := m.NewSession(2)
			cache, err := s.Prefill(ints(t, page, "token_ids"), eval.Want{Queries: 4})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "k", rowsOf(&cache.Full, true), floats(t, page, "k"))
			compare(t, "v", rowsOf(&cache.Full, false), floats(t, page, "v"))
		})
	}
}

func TestFollowPredictsTheTextAndGivesThePagesQueries(t *testing.T) {
	dir := needShared(t)
	m := loadModel(t, filepath.Join(dir, "tinylm"))
	for _, name := range []string{"man", "recall", "kjv"} {
		t.Run(name, func(t *testing.T) {
			page := tensors(t, filepath.Join(dir, "pages", name+".page.safetensors"))
			expected := tensors(t, filepath.Join(dir, "pages", name+".expected.safetensors"))
			s := m.NewSession(2)
			ids, next := ints(t, page, "token_ids"), ints(t, expected, "next_ids")
			cache, err := s.Prefill(ids, eval.Want{})
			if err != nil {
				t.Fatal(err)
			}
			q, err := s.Follow(next, len(ids), &cache.Full, 16)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "q", q.X, floats(t, page, "q"))
			outputs(t, s.Attend(q, &cache.Full), floats(t, expected, "full_attn"))
			at := make([]int, len(next)-1)
			for i := range at {
				at[i] = i
			}
			logits, stride := s.Logits(at)
			nll, hits := 0.0, 0
			for i := range at {
				row := logits[i*stride:][:m.Config.Vocab]
				lse, best := 0.0, 0
				for j, x := range row {
					lse += math.Exp(float64(x))
					if x > row[best] {
						best = j
					}
				}
				nll += math.Log(lse) - float64(row[next[i+1]])
				if best == int(next[i+1]) {
					hits++
				}
			}
			perplexity, share := math.Exp(nll/float64(len(at))), float64(hits)/float64(len(at))
			t.Logf("perplexity %.2f, next token right %.2f", perplexity, share)
			if perplexity > 30 || share < 0.2 {
				t.Errorf("got perplexity %.1f with %.2f of the tokens right, want at most 30 with at least 0.2", perplexity, share)
			}
		})
	}
}

func rowsOf(c *eval.Cores, keys bool) []float32 {
	var out []float32
	for i := range c.Planes {
		p := &c.Planes[i]
		x := p.V
		if keys {
			x = p.K
		}
		for r := range p.N {
			out = append(out, x[r*eval.Stride(c.Dim):][:c.Dim]...)
		}
	}
	return out
}

// compare allows 2e-2, the wire format's tolerance for values in F16.
func compare(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d elements, want %d", what, len(got), len(want))
	}
	worst, at := 0.0, 0
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= worst) {
			worst, at = d, i
		}
	}
	t.Logf("%s: largest difference %.2g", what, worst)
	if !(worst <= 2e-2) {
		t.Errorf("%s[%d]: got %v, want %v", what, at, got[at], want[at])
	}
}

// outputs allows 1e-2 of the whole tensor's length.
func outputs(t *testing.T, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("attention: got %d elements, want %d", len(got), len(want))
	}
	diff, full := 0.0, 0.0
	for i, w := range want {
		diff += (float64(got[i]) - w) * (float64(got[i]) - w)
		full += w * w
	}
	if e := math.Sqrt(diff / full); !(e <= 1e-2) {
		t.Errorf("attention outputs: got a relative difference of %.3g, want at most 0.01", e)
	}
}
