package pipeline

import (
	"fmt"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
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

// weighHeads gives the compressor the weights of the page's layers.
func (j *job) weighHeads(d *policy.Decision) error {
	all := d.Plan.HeadWeights
	if all == nil {
		return nil
	}
	p := j.page
	first := p.LayerFirst
	if first < 0 || first > len(all)-p.Layers || len(all[0]) != p.KVHeads {
		return &HeadWeightsError{Model: p.Model, Profile: d.Profile, Layers: len(all), Heads: len(all[0]), First: first, PageLayers: p.Layers, KVHeads: p.KVHeads}
	}
	j.weights = j.weights[:0]
	for _, heads := range all[first : first+p.Layers] {
		j.weights = append(j.weights, heads...)
	}
	j.opt.HeadWeights = j.weights
	return nil
}
