package eval

import (
	"cmp"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// evict keeps the first tokens, the last ones and, of those between, the ones with the highest scores; the others are
// dropped. It is the frame of every baseline that merges nothing.
type evict struct {
	score         func(c *Cache, plane int, score []float64) error
	sinks, recent int
	shared        bool   // one choice for the heads of a layer, by the sum of their scores
	sizes         *merge // where set, each layer and head keeps as many tokens as this one does
}

func newEvict(p *params, score func(*Cache, int, []float64) error) (Method, error) {
	opt := compress.Semantic()
	e := &evict{score: score, sinks: opt.Sinks, recent: opt.Recent}
	p.count("sinks", &e.sinks)
	p.count("recent", &e.recent)
	p.flag("shared", &e.shared)
	if v, ok := p.take("sizes"); ok {
		if v != "semantic" {
			return nil, badMethod("sizes must be semantic, got %q", v)
		}
		e.sizes = &merge{comp: p.comp, opt: opt}
	}
	if e.sinks < 0 || e.recent < 0 {
		return nil, badMethod("sinks and recent must not be negative, got %d and %d", e.sinks, e.recent)
	}
	return e, nil
}

// Compress implements [Method].
func (e *evict) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	if e.sizes != nil {
		if err := e.sizes.run(ctx, c, ratio); err != nil {
			return 0, err
		}
	}
	scores := make([][]float64, len(out.Planes))
	for i := range scores {
		scores[i] = make([]float64, c.Tokens)
		if err := e.score(c, i, scores[i]); err != nil {
			return 0, err
		}
	}
	if e.shared {
		share(scores, c.Heads)
	}
	for i := range out.Planes {
		slots := int(ratio*float64(c.Tokens) + 1e-9)
		if e.sizes != nil {
			slots = int(e.sizes.res.Slots[i])
		}
		for _, t := range e.pick(scores[i], slots) {
			out.Planes[i].Keep(&c.Full.Planes[i], t, c.Dim)
		}
	}
	return 0, nil
}

// pick lists the tokens to keep, in order.
func (e *evict) pick(score []float64, slots int) []int {
	n := len(score)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int { // 0 is kept first
		switch {
		case i >= n-e.recent:
			return 0
		case i < e.sinks:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if c := cmp.Compare(rank(a), rank(b)); c != 0 {
			return c
		}
		if rank(a) == 0 {
			return b - a
		}
		return cmp.Compare(score[b], score[a])
	})
	order = order[:min(max(slots, 1), n)]
	slices.Sort(order)
	return order
}

// share replaces the scores of a layer's heads by their sum.
func share(scores [][]float64, heads int) {
	for first := 0; first < len(scores); first += heads {
		for h := 1; h < heads; h++ {
			for t, v := range scores[first+h] {
				scores[first][t] += v
			}
		}
		for h := 1; h < heads; h++ {
			scores[first+h] = scores[first]
		}
	}
}

// windowScore prefers the latest tokens (StreamingLLM with the sinks).
func windowScore(_ *Cache, _ int, score []float64) error {
	for t := range score {
		score[t] = float64(t)
	}
	return nil
}

func randomScore(c *Cache, plane int, score []float64) error {
	r := rand.New(rand.NewPCG(uint64(c.Tokens), uint64(plane))) //nolint:gosec // no secret: the same tokens every time
	for t := range score {
		score[t] = r.Float64()
	}
	return nil
}

// keyNormScore prefers short keys, which attention tends to favour (Devoto 2024).
func keyNormScore(c *Cache, plane int, score []float64) error {
	for t := range score {
		score[t] = -norm(c.Full.Planes[plane].key(t, c.Dim))
	}
	return nil
}

// massScore prefers tokens that the whole context has attended to (H2O, Zhang 2023).
func massScore(c *Cache, plane int, score []float64) error {
	if c.Mass == nil {
		return badMethod("h2o needs the attention of the whole context, which the cache does not carry")
	}
	for t, m := range c.Mass[plane*c.Tokens:][:c.Tokens] {
		score[t] = float64(m)
	}
	return nil
}

// pool is the width of SnapKV's pooling: a token counts as much as the best of its neighbours.
const pool = 7

// lastQueriesScore prefers tokens that the last queries attend to (SnapKV, Li 2024), with max pooling.
func lastQueriesScore(c *Cache, plane int, score []float64) error {
	mass := lastMass(c, plane)
	for t := range score {
		best := float32(0)
		for _, m := range mass[max(t-pool/2, 0):min(t+pool/2+1, len(mass))] {
			best = max(best, m)
		}
		score[t] = float64(best)
	}
	return nil
}

// lastMass is the attention that each token of a plane gets from the context's last queries.
func lastMass(c *Cache, plane int) []float32 {
	var sc scratch
	d, q := c.Dim, &c.Last
	p, per := &c.Full.Planes[plane], q.Heads/c.Heads
	mass := make([]float32, c.Tokens)
	sc.load(p, nil, nil, 0, d)
	scale := float32(1 / math.Sqrt(float64(d)))
	for g := range per {
		x := q.Of(plane/c.Heads, plane%c.Heads*per+g)
		sc.tile(q.Window, d)
		for i := range q.Window {
			sc.query(i, x[i*d:(i+1)*d], scale)
			sc.limits[i] = c.Tokens - q.Window + i + 1
		}
		sc.attend(simd.Best(), p, d)
		sc.sum(mass)
	}
	return mass
}

// outlierScore prefers keys far from the mean direction of the un-rotated keys (KeyDiff, Park 2025).
func outlierScore(c *Cache, plane int, score []float64) error {
	pre, err := unrotated(c, plane)
	if err != nil {
		return err
	}
	mean := make([]float64, c.Dim)
	for t := range score {
		row := pre[t*c.Dim : (t+1)*c.Dim]
		n := norm(row) + 1e-9
		for i, x := range row {
			mean[i] += float64(x) / n
		}
	}
	length := 0.0
	for _, x := range mean {
		length += x * x
	}
	length = math.Sqrt(length) + 1e-9
	for t := range score {
		row := pre[t*c.Dim : (t+1)*c.Dim]
		dot := 0.0
		for i, x := range row {
			dot += float64(x) * mean[i]
		}
		score[t] = 1 - dot/(length*(norm(row)+1e-9))
	}
	return nil
}
