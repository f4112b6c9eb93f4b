package prove

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/transport/page"
)

// agreement is how far the error computed here may lie from the sidecar's: a GPU rounds otherwise.
const agreement = 0.01

// remeasure computes the attention error, and holds the sidecar's word against it.
func (p *Proof) remeasure(ctx context.Context, c *compress.Compressor, sent *page.Page, cores *page.Cores) error {
	f, err := pipeline.Remeasure(ctx, c, sent, cores)
	if err != nil {
		return err
	}
	if p.AttentionError == nil {
		p.AttentionError, p.WorstError = new(float64), new(float64)
	}
	*p.AttentionError += f.Error
	*p.WorstError = max(*p.WorstError, f.Worst)
	if said, ok := cores.Fidelity["attention_error"]; ok && math.Abs(show.Number(said)-f.Error) > agreement {
		p.fail(codeProveIntegrity, "page %d: the sidecar says that the attention error is %s, and it is %.4f", p.Pages, said, f.Error)
	}
	return nil
}

// Belongs holds what the decoder of cores cannot know: that they are the page's, that tokens kept alone have their key, and their value
// too where nothing may move it: where the page protects them, or has no queries that values are fitted to.
func Belongs(sent *page.Page, c *page.Cores) error {
	if c.Sequence != sent.Sequence || c.Model != sent.Model || c.LayerFirst != sent.LayerFirst || c.TokenFirst != sent.TokenFirst {
		return fmt.Errorf("the cores are of sequence %s of %s, not of %s of %s", c.Sequence, c.Model, sent.Sequence, sent.Model)
	}
	if c.Tokens != sent.Tokens || c.Layers != sent.Layers || c.KVHeads != sent.KVHeads || c.HeadDim != sent.HeadDim {
		return fmt.Errorf("the cores are [%d layers, %d heads, %d dimensions] of %d tokens, the page is [%d, %d, %d] of %d",
			c.Layers, c.KVHeads, c.HeadDim, c.Tokens, sent.Layers, sent.KVHeads, sent.HeadDim, sent.Tokens)
	}
	at := make(map[float32]int, sent.Tokens)
	for i := range sent.Tokens {
		at[float32(sent.Positions.At(i))] = i
	}
	row := len(sent.K) / (sent.Layers * sent.KVHeads * sent.Tokens)
	for plane := range c.Layers * c.KVHeads {
		h := c.Head(plane/c.KVHeads, plane%c.KVHeads)
		for i := range h.N {
			count := binary.LittleEndian.Uint32(h.Counts[4*i:])
			if bias := math.Float32frombits(binary.LittleEndian.Uint32(h.Bias[4*i:])); math.Abs(float64(bias)-math.Log(float64(count))) > 1e-5 {
				return fmt.Errorf("head %d, core %d: the bias is %v, the logarithm of its count %d is %.6f", plane, i, bias, count, math.Log(float64(count)))
			}
			if count != 1 {
				continue
			}
			token, ok := at[math.Float32frombits(binary.LittleEndian.Uint32(h.Positions[4*i:]))]
			if !ok {
				return fmt.Errorf("head %d, core %d stands for one token, at the position of none", plane, i)
			}
			from := (plane*sent.Tokens + token) * row
			if c.DType != sent.DType {
				continue
			}
			if !bytes.Equal(h.K[i*row:(i+1)*row], sent.K[from:from+row]) {
				return fmt.Errorf("head %d, core %d stands for token %d alone and has another key", plane, i, token)
			}
			still := sent.Q == nil || sent.Protect != nil && sent.Protect[token] != 0
			if still && !bytes.Equal(h.V[i*row:(i+1)*row], sent.V[from:from+row]) {
				return fmt.Errorf("head %d, core %d stands for token %d alone and has another value", plane, i, token)
			}
		}
	}
	return nil
}
