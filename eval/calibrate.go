package eval

import (
	"context"

	"github.com/semproxy/semproxy/compress"
)

// Calibration says on what the heads of a model are measured.
type Calibration struct {
	Texts    [][]int32                // contexts
	Ask      []int32                  // the tokens that ask for a repetition
	Ratio    float64                  // tokens kept
	Boundary func(ids []int32) []byte // one byte per token, non-zero where it ends a clause; or nil
	Progress func(done, total int)    // of texts; or nil
}

// Bounds of a head's weight: a policy's while they are looked for; in the end no head is made very cheap.
const leastWeight, mostWeight, leastGiven = 1.0 / 64, 64, 0.1

// rounds is how often the weights are corrected by what they did.
const rounds = 4

// HeadWeights finds for each KV head of a model, [layers][KV heads], the weight under which the method weighted, which sees no question,
// leaves it as many cores as it needs. What it needs is shown by each text said again after itself: how much its tokens are looked at
// then is their importance (KVzip), and a budget for the whole model spread by importance gives a head its share. Few
// heads look things up, the same ones in any text.
func HeadWeights(ctx context.Context, m *Model, c *Calibration) ([][]float64, error) {
	if len(c.Texts) == 0 {
		return nil, badData("no texts to measure heads on")
	}
	comp, session := compress.New(0), m.NewSession(0)
	defer comp.Close()
	planes := m.Config.Layers * m.Config.Heads
	var pages []compress.Input
	need := make([]float64, planes)
	for i, ids := range c.Texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		cache, err := session.Prefill(ids, Want{})
		if err != nil {
			return nil, err
		}
		if c.Boundary != nil {
			cache.Boundary = c.Boundary(ids)
		}
		in := cache.input()
		ask(&in, &cache.Sample)
		in.QPositions = cache.Asked
		pages = append(pages, in)
		if in.Importance, err = session.Repeat(append(append([]int32(nil), c.Ask...), ids...), cache); err != nil {
			return nil, err
		}
		if err := shares(ctx, comp, &in, c.Ratio, nil, need); err != nil {
			return nil, err
		}
		if c.Progress != nil {
			c.Progress(i+1, len(c.Texts))
		}
	}
	weights := make([]float64, planes)
	for i := range weights {
		weights[i] = 1
	}
	for range rounds {
		got := make([]float64, planes)
		for i := range pages {
			if err := shares(ctx, comp, &pages[i], c.Ratio, weights, got); err != nil {
				return nil, err
			}
		}
		sum := 0.0
		for i := range weights {
			weights[i] *= (need[i] + leastShare) / (got[i] + leastShare)
			sum += weights[i] / float64(planes)
		}
		for i := range weights {
			weights[i] = min(max(weights[i]/sum, leastWeight), mostWeight)
		}
	}
	for i, w := range weights {
		weights[i] = max(w, leastGiven)
	}
	out := make([][]float64, m.Config.Layers)
	for l := range out {
		out[l] = weights[l*m.Config.Heads:][:m.Config.Heads]
	}
	return out, nil
}

// leastShare keeps heads that have nothing but their first and last tokens from weights without bounds.
const leastShare = 0.005

// shares adds the cores over tokens that each head keeps of a page, beside the first and last tokens, which every head keeps.
func shares(ctx context.Context, comp *compress.Compressor, in *compress.Input, ratio float64, weights, sum []float64) error {
	opt := compress.Weighted()
	opt.Ratio, opt.Fit, opt.HeadWeights = ratio, false, weights
	var res compress.Result
	if err := comp.Compress(ctx, in, &opt, &res); err != nil {
		return err
	}
	for plane, n := range res.Slots {
		sum[plane] += float64(max(int(n)-opt.Sinks-opt.Recent, 0)) / float64(in.Tokens)
	}
	return nil
}
