package pipeline

import (
	"fmt"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/defaults"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// HeadWeightsError refuses a page that its policy's head weights do not fit: they are another model's. It is final.
type HeadWeightsError struct {
	Model, Profile             string
	Layers, Heads              int // that there are weights for
	First, PageLayers, KVHeads int
}

// Code is policy.head_weights.
func (*HeadWeightsError) Code() string { return codes.HeadWeights }

func (e *HeadWeightsError) Error() string {
	return fmt.Sprintf("profile %s has weights for %d layers of %d KV heads (headWeights), and the page of model %.100q has layers %d to %d of %d: "+
		"give the model a rule and a profile of its own", e.Profile, e.Layers, e.Heads, e.Model, e.First, e.First+e.PageLayers-1, e.KVHeads)
}

// weighHeads gives the compressor the weights of the page's layers, and says where they are from: the profile, or what is known of the
// model's heads. It is called for every ratio that is tried.
func (j *job) weighHeads(d *policy.Decision) error {
	j.opt.HeadWeights, j.report.HeadWeights = nil, semconv.HeadWeightsNone
	p, all := j.page, d.Plan.HeadWeights
	first := p.LayerFirst
	switch {
	case knowsHeads(&d.Plan):
		j.weights = defaults.HeadWeights(j.weights[:0], p.Model, first, p.Layers, p.KVHeads, j.opt.Ratio, p.Importance != nil)
		if len(j.weights) == 0 {
			return nil
		}
		j.report.HeadWeights = semconv.HeadWeightsModel
	case all == nil || d.Plan.AlikeHeads():
		return nil
	case first < 0 || first > len(all)-p.Layers || len(all[0]) != p.KVHeads:
		return &HeadWeightsError{Model: p.Model, Profile: d.Profile, Layers: len(all), Heads: len(all[0]), First: first, PageLayers: p.Layers, KVHeads: p.KVHeads}
	default:
		j.weights = j.weights[:0]
		for _, heads := range all[first : first+p.Layers] {
			j.weights = append(j.weights, heads...)
		}
		j.report.HeadWeights = semconv.HeadWeightsProfile
	}
	j.opt.HeadWeights = j.weights
	return nil
}

// knowsHeads reports whether a profile leaves its heads' weights to what is known of the model.
func knowsHeads(p *policy.Profile) bool {
	return p.HeadWeights == nil && p.Method == policy.MethodWeighted && p.Budget == policy.BudgetAdaptive && p.Threshold == nil
}
