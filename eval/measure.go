package eval

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/semproxy/semproxy/compress"
)

// measure is one case under one method at one ratio.
type measure struct {
	nll               float64 // sum of the negative log likelihoods of tokens predictions
	tokens            int
	answers, recalled int
	attention         float64 // relative error of the outputs
	kept, bytes       float64 // shares of the full cache
	took              time.Duration
}

// measure returns the full cache first, then the methods, each at all ratios.
func (r *runner) measure(ctx context.Context, c *Case) ([]measure, error) {
	cache, err := r.session.Prefill(c.Context, Want{Queries: min(lastQueries, len(c.Context)), Mass: r.mass})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	if r.plan.Boundary != nil {
		cache.Boundary = r.plan.Boundary(c.Context)
	}
	queries, err := r.session.Follow(c.Follow, cache.Tokens, &cache.Full, min(errorQueries, len(c.Follow)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	full := measure{kept: 1, bytes: 1}
	r.score(c, &full)
	r.plan.step()
	want := compress.Attention{Layers: queries.Layers, Heads: queries.Heads, Window: queries.Window, Dim: queries.Dim,
		Out: r.session.Attend(queries, &cache.Full)}
	got := want
	var fidelity compress.Fidelity
	out := []measure{full}
	for i, method := range r.methods {
		for _, ratio := range r.plan.Ratios {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			m := measure{}
			r.cores.Reset(cache)
			start := time.Now()
			m.took, err = method.Compress(ctx, cache, ratio, &r.cores)
			if m.took == 0 {
				m.took = time.Since(start)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: method %s at %v: %w", c.Name, r.plan.Methods[i], ratio, err)
			}
			m.kept, m.bytes = r.cores.Kept(cache.Tokens), float64(r.cores.Bytes())/float64(cache.Full.Bytes())
			got.Out = r.session.Attend(queries, &r.cores)
			fidelity.Compare(&want, &got)
			m.attention = fidelity.Error
			if _, err := r.session.Follow(c.Follow, cache.Tokens, &r.cores, 0); err != nil {
				return nil, err
			}
			r.score(c, &m)
			r.plan.step()
			out = append(out, m)
		}
	}
	return out, nil
}

// score reads perplexity or recall off the session's last pass. Only predictions made after compression count: the first
// token that follows is predicted by the context itself.
func (r *runner) score(c *Case, m *measure) {
	if len(c.Answers) > 0 {
		for _, ok := range r.session.answered(c) {
			if m.answers++; ok {
				m.recalled++
			}
		}
		return
	}
	at := make([]int, len(c.Follow)-1)
	for i := range at {
		at[i] = i
	}
	logits, stride := r.session.Logits(at)
	for i := range at {
		m.nll += negLogLikelihood(logits[i*stride:][:r.session.m.Config.Vocab], int(c.Follow[i+1]))
		m.tokens++
	}
}

// answered says which answers of a case the session's last pass, over all of its Follow, predicts in every token.
func (s *Session) answered(c *Case) []bool {
	var at []int
	for _, a := range c.Answers {
		for i := a.From; i < a.To; i++ {
			at = append(at, i-1)
		}
	}
	logits, stride := s.Logits(at)
	out := make([]bool, len(c.Answers))
	row := 0
	for n, a := range c.Answers {
		out[n] = true
		for i := a.From; i < a.To; i++ {
			out[n] = out[n] && argmax(logits[row*stride:][:s.m.Config.Vocab]) == int(c.Follow[i])
			row++
		}
	}
	return out
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

func negLogLikelihood(logits []float32, token int) float64 {
	top := float64(logits[argmax(logits)])
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum) - float64(logits[token])
}
