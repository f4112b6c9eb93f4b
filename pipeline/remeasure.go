package pipeline

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/transport/page"
)

// Attender computes attention: a compressor, or what stands before it.
type Attender interface {
	Attend(ctx context.Context, in *compress.Input, res *compress.Result, out *compress.Attention) error
}

// Remeasure computes how close attention over cores, as they came over the wire, comes to attention over p's own keys and values.
// It believes nothing that the cores' metadata says of the loss. The cores must be those of p, and p must carry queries.
func Remeasure(ctx context.Context, a Attender, p *page.Page, cores *page.Cores) (*compress.Fidelity, error) {
	if cores.Layers != p.Layers || cores.KVHeads != p.KVHeads || cores.HeadDim != p.HeadDim || cores.Tokens != p.Tokens {
		return nil, fmt.Errorf("the cores are [%d layers, %d heads, %d dimensions] of %d tokens, the page is [%d, %d, %d] of %d",
			cores.Layers, cores.KVHeads, cores.HeadDim, cores.Tokens, p.Layers, p.KVHeads, p.HeadDim, p.Tokens)
	}
	j := job{page: p}
	j.shape()
	probe, err := j.probes.Of(&j.in)
	if err != nil {
		return nil, err
	}
	var full, got compress.Attention
	if err := a.Attend(ctx, &probe, nil, &full); err != nil {
		return nil, err
	}
	if err := a.Attend(ctx, &probe, resultOf(cores), &got); err != nil {
		return nil, err
	}
	var f compress.Fidelity
	f.Compare(&full, &got)
	return &f, nil
}

// resultOf is what attention needs of a compressor's result, with every head padded to the largest.
func resultOf(c *page.Cores) *compress.Result {
	planes, row := c.Layers*c.KVHeads, c.HeadDim*dtypes[c.DType].Size()
	r := &compress.Result{
		Layers: c.Layers, Heads: c.KVHeads, Cores: c.Cores, Dim: c.HeadDim, Tokens: c.Tokens, DType: dtypes[c.DType],
		K: make([]byte, planes*c.Cores*row), V: make([]byte, planes*c.Cores*row),
		Bias: make([]float32, planes*c.Cores), Slots: make([]int32, planes),
	}
	for plane := range planes {
		h := c.Head(plane/c.KVHeads, plane%c.KVHeads)
		first := plane * c.Cores
		copy(r.K[first*row:], h.K)
		copy(r.V[first*row:], h.V)
		for i := range h.N {
			r.Bias[first+i] = math.Float32frombits(binary.LittleEndian.Uint32(h.Bias[4*i:]))
		}
		r.Slots[plane] = int32(h.N)
	}
	if c.DType.IsF8() {
		r.KScale, r.VScale = make([]float32, planes), make([]float32, planes)
		floats(r.KScale, c.KScale)
		floats(r.VScale, c.VScale)
	}
	return r
}
