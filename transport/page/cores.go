package page

import "slices"

// FormatCores is the metadata value "format" of cores.
const FormatCores = "semproxy.cores.v1"

// Cores is a compressed page: what stands for the page's tokens. Heads may keep different numbers of cores, and there are
// two forms. Padded, Slots is nil: every head has as many entries as the largest, and the rest of a shorter head is
// padding at its end: count 0, bias -inf, which attention never sees. Packed: Slots says how many cores each head has,
// and the heads' entries follow each other without padding, in row-major order of (layer, head). Head hides the
// difference. Of decoded cores every []byte aliases the blob.
type Cores struct {
	Model, Sequence, Layout string // the page's own
	LayerFirst, TokenFirst  int
	TokensTotal             int
	Page, Pages             int
	Tokens                  int // tokens given: those of the page

	DType                           DType // of K and V: the page's own, or FP8 for a page of wider elements
	Layers, KVHeads, Cores, HeadDim int   // Cores: the most of any head

	// entries is [layers, kv_heads, cores] in the padded form, one dimension, the sum of Slots, in the packed form.
	Slots          []byte // I32 [layers, kv_heads]: cores of each head, at least 1; nil: the padded form
	K, V           []byte // [entries, head_dim] of DType
	KScale, VScale []byte // F32 [layers, kv_heads]: stored value * scale = value; FP8 only, otherwise nil
	Counts         []byte // I32 [entries]: tokens that a core stands for, 0 for padding
	Bias           []byte // F32 [entries]: added to the scaled logit, -inf for padding
	Positions      []byte // F32 [entries]: the position that the key is rotated to
	Assign         []byte // I32 [layers, kv_heads, tokens]: the core of each token, within its head, -1: dropped; nil when absent
	Dropped        []byte // I32 [layers, kv_heads]: tokens that no core stands for, fewer than all; nil: none of any head

	Folded bool // K carries the bias: every Bias is 0 but for padding, and nothing is to be added

	// Coded, when not nil, is K and V in few bits, and what Append writes; K and V are then what it stands for, in memory of
	// their own. Set it with Code.
	Coded *Coded

	Policy, PolicyDigest, Rule string            // what decided
	Engine                     string            // what computed: "cuda:0", "cpu:avx512" ...
	TraceParent                string            // W3C trace context of the compression
	Ratio                      float64           // cores / tokens, over all heads
	Fidelity                   map[string]string // metadata "fidelity.<key>"; nil when nothing was measured
	Extra                      map[string]string // other metadata; nil when there is none
}

const (
	fidelityPrefix = "fidelity."
	packedKey      = "packed" // metadata of the packed form, with the value packedValue
	packedValue    = "true"
	foldedKey      = "folded" // metadata of cores whose keys carry the bias, with the value foldedValue
	foldedValue    = "true"
)

func (c *Cores) identity() identity {
	return identity{
		model: c.Model, sequence: c.Sequence, layout: c.Layout, layerFirst: c.LayerFirst,
		tokenFirst: c.TokenFirst, tokensTotal: c.TokensTotal, page: c.Page, pages: c.Pages,
	}
}

// texts lists the optional metadata with their keys.
func (c *Cores) texts() [5]struct {
	key   string
	value *string
} {
	return [5]struct {
		key   string
		value *string
	}{
		{"policy", &c.Policy}, {"policy_digest", &c.PolicyDigest}, {"rule", &c.Rule}, {"engine", &c.Engine},
		{"traceparent", &c.TraceParent},
	}
}

// tensors lists what the cores hold, in a fixed order.
func (c *Cores) tensors() []tensor {
	heads, rows := []int{c.Layers, c.KVHeads}, c.rows()
	kv := append(slices.Clone(rows), c.HeadDim)
	all := []tensor{
		{name: "k", elem: c.DType.element(), shape: kv, data: c.K},
		{name: "v", elem: c.DType.element(), shape: kv, data: c.V},
		{name: "counts", elem: elemI32, shape: rows, data: c.Counts},
		{name: "bias", elem: elemF32, shape: rows, data: c.Bias},
		{name: "positions", elem: elemF32, shape: rows, data: c.Positions},
	}
	if c.Coded != nil {
		all = c.Coded.tensors(c)
	}
	if c.Slots != nil {
		all = append(all, tensor{name: "slots", elem: elemI32, shape: heads, data: c.Slots})
	}
	if c.DType.IsF8() {
		all = append(all,
			tensor{name: "k_scale", elem: elemF32, shape: heads, data: c.KScale},
			tensor{name: "v_scale", elem: elemF32, shape: heads, data: c.VScale})
	}
	if c.Assign != nil {
		all = append(all, tensor{name: "assign", elem: elemI32, shape: []int{c.Layers, c.KVHeads, c.Tokens}, data: c.Assign})
	}
	if c.Dropped != nil {
		all = append(all, tensor{name: "dropped", elem: elemI32, shape: heads, data: c.Dropped})
	}
	return all
}
