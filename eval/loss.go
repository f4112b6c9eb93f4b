package eval

import (
	"context"
	"fmt"
	"sort"

	"github.com/semproxy/semproxy/compress"
)

// Loss is what one context lost under one budget at one ratio, beside what its page says without knowing an answer.
type Loss struct {
	Budget      compress.Budget
	Ratio       float64 // tokens kept
	Lookup      float64 // the page's lookup error, measured as a sidecar measures it
	Asked, Lost int     // answers that the model gives with all tokens, and those of them that it gives no more
}

// LossPlan says how facts are looked for.
type LossPlan struct {
	Boundary func(ids []int32) []byte    // one byte per token, non-zero where it ends a clause; or nil
	Progress func(done, total, lost int) // of cases, and answers that the full cache itself does not give; or nil
}

// The ratios and budgets at which pages are measured: from hardly any loss to nearly everything.
var (
	lossRatios  = []float64{0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.06}
	lossBudgets = []compress.Budget{compress.Adaptive, compress.Equal}
)

// Losses compresses the contexts of cases with answers by the default method, and asks for the answers.
func Losses(ctx context.Context, m *Model, cases []Case, plan *LossPlan) ([]Loss, error) {
	p := prober{session: m.NewSession(0), comp: compress.New(0), plan: plan}
	defer p.comp.Close()
	var out []Loss
	missing := 0
	for i := range cases {
		c := &cases[i]
		if len(c.Answers) == 0 {
			return nil, badData("%s: there is nothing to ask for", c.Name)
		}
		got, known, err := p.losses(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Name, err)
		}
		out = append(out, got...)
		if missing += len(c.Answers) - known; plan.Progress != nil {
			plan.Progress(i+1, len(cases), missing)
		}
	}
	return out, nil
}

// prober asks for the facts of one context at a time.
type prober struct {
	session *Session
	comp    *compress.Compressor
	plan    *LossPlan
	probes  compress.Probes
	cores   Cores

	full, got compress.Attention
	fidelity  compress.Fidelity
}

// losses is a case under every budget at every ratio. known is how many answers the full cache gives.
func (p *prober) losses(ctx context.Context, c *Case) (out []Loss, known int, err error) {
	cache, err := p.session.Prefill(c.Context, Want{})
	if err != nil {
		return nil, 0, err
	}
	if p.plan.Boundary != nil {
		cache.Boundary = p.plan.Boundary(c.Context)
	}
	right, err := p.ask(c, cache, &cache.Full)
	if err != nil {
		return nil, 0, err
	}
	for _, ok := range right {
		if ok {
			known++
		}
	}
	in := cache.input()
	ask(&in, &cache.Sample)
	in.QPositions = cache.Asked
	probe, err := p.probes.Of(&in)
	if err != nil {
		return nil, 0, err
	}
	if err := p.comp.Attend(ctx, &probe, nil, &p.full); err != nil {
		return nil, 0, err
	}
	for _, budget := range lossBudgets {
		how := merge{comp: p.comp, opt: compress.Weighted()}
		how.knows = budget == compress.Adaptive
		how.opt.Budget, how.opt.Across = budget, how.opt.Across && budget != compress.Equal
		for _, ratio := range lossRatios {
			one := Loss{Budget: budget, Ratio: ratio, Asked: known}
			p.cores.Reset(cache)
			if _, err := how.Compress(ctx, cache, ratio, &p.cores); err != nil {
				return nil, 0, err
			}
			if err := p.comp.Attend(ctx, &probe, &how.res, &p.got); err != nil {
				return nil, 0, err
			}
			p.fidelity.Compare(&p.full, &p.got)
			one.Lookup = p.fidelity.Lookup
			still, err := p.ask(c, cache, &p.cores)
			if err != nil {
				return nil, 0, err
			}
			for i, ok := range right {
				if ok && !still[i] {
					one.Lost++
				}
			}
			out = append(out, one)
		}
	}
	return out, known, nil
}

// ask says which answers of a case are given over what is left of its cache.
func (p *prober) ask(c *Case, cache *Cache, over *Cores) ([]bool, error) {
	if _, err := p.session.Follow(c.Follow, cache.Tokens, over, 0); err != nil {
		return nil, err
	}
	return p.session.answered(c), nil
}

// Least of a measurement that says something: answers given with all tokens, and their share.
const (
	leastAnswers = 40
	leastRecall  = 0.2
)

// LossCurve turns measurements into points {lookup error, expected share of facts lost}, both rising, from {0, 0} to {1, 1}: the
// means of ten parts of equal weight, in the order of the lookup error. asked is how many answers were looked for in all.
func LossCurve(losses []Loss, asked int) ([][2]float64, error) {
	sorted := append([]Loss(nil), losses...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Lookup < sorted[j].Lookup })
	total := 0
	for _, l := range sorted {
		total += l.Asked
	}
	conditions := len(lossBudgets) * len(lossRatios)
	if known := total / conditions; known < leastAnswers || float64(known) < leastRecall*float64(asked) {
		return nil, badData("with all of its tokens the model gives %d of %d answers: a loss cannot be measured by fewer than %d, or than %.0f %%; "+
			"give more texts, or shorter ones", known, asked, leastAnswers, 100*leastRecall)
	}
	const parts = 10
	var blocks []block
	var b block
	for _, l := range sorted {
		b.lookup += l.Lookup * float64(l.Asked)
		b.lost += float64(l.Lost)
		if b.asked += float64(l.Asked); b.asked >= float64(total)/parts {
			blocks, b = rising(append(blocks, b)), block{}
		}
	}
	if b.asked > 0 {
		blocks = rising(append(blocks, b))
	}
	curve := [][2]float64{{0, 0}}
	for _, b := range blocks {
		if lookup := b.lookup / b.asked; lookup > curve[len(curve)-1][0] && lookup < 1 {
			curve = append(curve, [2]float64{lookup, b.share()})
		}
	}
	return append(curve, [2]float64{1, 1}), nil
}

// block is measurements that follow each other.
type block struct{ lookup, lost, asked float64 }

// share is the expected share that is lost; half an answer is added, because nothing lost among few is no proof.
func (b *block) share() float64 { return (b.lost + 0.5) / (b.asked + 1) }

// rising joins the last blocks for as long as the last loses less than the one before it (pool adjacent violators).
func rising(blocks []block) []block {
	for n := len(blocks); n > 1 && blocks[n-1].share() <= blocks[n-2].share(); n-- {
		last, before := blocks[n-1], &blocks[n-2]
		before.lookup, before.lost, before.asked = before.lookup+last.lookup, before.lost+last.lost, before.asked+last.asked
		blocks = blocks[:n-1]
	}
	return blocks
}
