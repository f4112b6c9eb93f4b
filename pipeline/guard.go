package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// relaxBy is the step by which the guard keeps more tokens, relaxSteps how often it tries before it lets the page through.
const (
	relaxBy    = 1.5
	relaxSteps = 6
)

// guarded compresses, and holds the policy's bound on the loss: relax keeps half as many tokens more each
// time, pass lets the page through, report only says so.
func (p *Pipeline) guarded(ctx context.Context, j *job, d *policy.Decision) error {
	plan, r := &d.Plan, &j.report
	j.opt.Progress = p.cfg.Progress
	if plan.Untouched() {
		r.Guard = semconv.GuardOff
		return p.exact(ctx, j)
	}
	r.Guard = semconv.GuardOff
	if plan.Threshold == nil {
		r.Asked = plan.Ratio
	}
	guarded := !plan.Guard.None()
	for try := 0; ; try++ {
		if err := j.weighHeads(d); err != nil {
			return err
		}
		if err := p.attempt(ctx, j, plan); err != nil {
			return err
		}
		switch {
		case !guarded:
			return nil
		case !r.Measured:
			r.Guard = semconv.GuardUnmeasured
			return nil
		case r.within(plan.Guard) && try == 0:
			r.Guard = semconv.GuardHeld
			return nil
		case r.within(plan.Guard):
			r.Guard = semconv.GuardRelaxed
			return nil
		case plan.Guard.OnViolation == policy.ViolationReport:
			r.Guard = semconv.GuardViolated
			return nil
		case plan.Guard.OnViolation == policy.ViolationPass || try == relaxSteps || !j.spend() || !relax(j, plan):
			r.Reason += "; passed through exactly: " + r.excess(plan.Guard)
			r.Guard = semconv.GuardPassthrough
			return p.exact(ctx, j)
		}
	}
}

// within reports whether the loss that was measured is within the guard's bounds.
func (r *Report) within(g policy.Guard) bool {
	return (g.MaxFactsLost == 0 || r.FactsLost <= g.MaxFactsLost) && (g.MaxAttentionError == 0 || r.AttentionError <= g.MaxAttentionError)
}

// excess says which bound is exceeded.
func (r *Report) excess(g policy.Guard) string {
	if g.MaxFactsLost > 0 && r.FactsLost > g.MaxFactsLost {
		return fmt.Sprintf("the expected share of facts lost %.3f exceeds %.3f", r.FactsLost, g.MaxFactsLost)
	}
	return fmt.Sprintf("the attention error %.3f exceeds %.3f", r.AttentionError, g.MaxAttentionError)
}

// relax makes the next attempt keep more. It reports false when that would keep everything.
func relax(j *job, plan *policy.Profile) bool {
	if plan.Threshold != nil {
		j.opt.Threshold = (1 + j.opt.Threshold) / 2
		return true
	}
	j.opt.Ratio *= relaxBy
	return j.opt.Ratio < 1
}

// attempt compresses once and measures.
func (p *Pipeline) attempt(ctx context.Context, j *job, plan *policy.Profile) error {
	if err := p.measure(ctx, j, plan.Bits); err != nil {
		return err
	}
	r := &j.report
	r.Outcome = semconv.OutcomeCompressed
	r.Ratio, r.KeySimilarity = j.res.Kept(), j.res.MeanKeySimilarity()
	r.Cores, r.Dropped = int(r.Ratio*float64(r.Tokens)+0.5), meanDropped(&j.res)
	if j.in.Q == nil {
		r.ValueError, _ = j.res.MeanValueError()
		j.perLayer(nil)
		return nil
	}
	f := &j.fidelity
	f.Compare(&j.full, &j.got)
	r.Measured, r.AttentionError, r.WorstError, r.LookupError = true, f.Error, f.Worst, f.Lookup
	r.FactsLost = expectedLoss(lossCurve(r.Model, plan.Guard.LossCurve), f.Lookup)
	r.WorstHead = fmt.Sprintf("%d/%d", int(j.page.LayerFirst)+f.WorstLayer, f.WorstHead)
	j.perLayer(f.Heads)
	return nil
}

// perLayer fills the report's layers in. errs, [Layers, QHeads], are the heads' attention errors; nil: not measured.
func (j *job) perLayer(errs []float64) {
	res := &j.res
	j.layers = j.layers[:0]
	for l := range res.Layers {
		one := LayerReport{Layer: int(j.page.LayerFirst) + l}
		for h := l * res.Heads; h < (l+1)*res.Heads; h++ {
			one.Ratio += float64(res.Slots[h]) / float64(res.Heads*res.Tokens)
			one.KeySimilarity += float64(res.KeySimilarity[h]) / float64(res.Heads)
		}
		if n := len(errs) / res.Layers; n > 0 {
			for _, e := range errs[l*n : (l+1)*n] {
				one.AttentionError += e / float64(n)
			}
		}
		j.layers = append(j.layers, one)
	}
	j.report.PerLayer = j.layers
}

// measure fills j.res and, where the page brings queries, j.full and j.got.
func (p *Pipeline) measure(ctx context.Context, j *job, bits int) error {
	j.isCoded = false
	full, got := &j.full, &j.got
	switch {
	case j.in.Q == nil:
		full, got = nil, nil
	case j.report.Measured: // the originals do not change between attempts
		full = nil
	default:
		var err error
		if j.probe, err = j.probes.Of(&j.in); err != nil {
			return err
		}
	}
	if bits > 0 {
		return p.coded(ctx, j, bits, full, got)
	}
	return p.work(ctx, j, &j.opt, full, got)
}

// work has the compressor do a page, and notes where it did.
func (p *Pipeline) work(ctx context.Context, j *job, opt *compress.Options, full, got *compress.Attention) (err error) {
	r, c := &j.report, p.cfg.Compressor
	if m, ok := c.(Measurer); ok {
		r.Device, err = m.Measure(ctx, &j.in, &j.probe, opt, &j.res, full, got)
		return err
	}
	r.Device = c.Device()
	if err := c.Compress(ctx, &j.in, opt, &j.res); err != nil {
		return err
	}
	start := time.Now()
	defer func() { r.Stages.Measure += time.Since(start) }()
	if full != nil {
		if err := c.Attend(ctx, &j.probe, nil, full); err != nil {
			return err
		}
	}
	if got != nil {
		return c.Attend(ctx, &j.probe, &j.res, got)
	}
	return nil
}

// exact makes every token its own core.
func (p *Pipeline) exact(ctx context.Context, j *job) error {
	j.isCoded = false
	opt := exactOptions()
	opt.Progress = j.opt.Progress
	if err := p.work(ctx, j, &opt, nil, nil); err != nil {
		return err
	}
	r := &j.report
	r.Outcome, r.Ratio, r.KeySimilarity, r.Cores = semconv.OutcomeExact, 1, 1, r.Tokens
	r.Dropped, r.PerLayer = 0, nil
	r.Measured, r.AttentionError, r.WorstError, r.WorstHead, r.LookupError, r.FactsLost = j.in.Q != nil, 0, 0, "", 0, 0
	return nil
}
