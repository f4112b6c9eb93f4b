package page

// FormatPage is the metadata value "format" of a page.
const FormatPage = "semproxy.page.v1"

// Page is the keys and values of a contiguous run of tokens of one sequence, for one or more layers, as an engine
// sends them. Of a decoded page every []byte and Ints aliases the blob.
type Page struct {
	Model    string // the model's name, as policies match it
	Sequence string // the request's id, chosen by the sender
	Layout   string // the engine's layout; see Fingerprint

	LayerFirst  int // the first layer of this page within the model
	TokenFirst  int // the first token of this page within the sequence
	TokensTotal int // tokens of the whole sequence
	Page, Pages int // this is page Page, from 0, of Pages

	Rope  Rope
	DType DType // of K and V

	Layers, KVHeads, Tokens, HeadDim int

	K, V           []byte // [layers, kv_heads, tokens, head_dim] of DType; K after RoPE
	KScale, VScale []byte // F32 [layers, kv_heads]: stored value * scale = value. FP8 only, otherwise nil
	TokenIDs       Ints   // [tokens]
	Positions      Ints   // [tokens], strictly increasing, from 0 to 2^31-1

	Q          []byte // [layers, q_heads, window, head_dim] of QDType: queries after RoPE; nil when absent
	QDType     DType  // 0 when Q is absent
	QHeads     int    // a multiple of KVHeads; 0 when Q is absent
	Window     int    // 0 when Q is absent
	QPositions Ints   // [window], the positions of the queries; absent: they are the last tokens'
	Boundary   []byte // [tokens], not 0: the engine marks a delimiter; nil when absent
	Protect    []byte // [tokens], not 0: never merge this token; nil when absent
	Importance []byte // F32 [layers, kv_heads, tokens], how much a token is needed, from 0 on; nil when absent

	Folded  bool // the sender's kernel adds no bias: the cores' keys shall carry it
	Granule int  // a head's cores shall come in multiples of it, where the budget has shapes; 0: any number

	Checksummed bool              // the blob carries, or Append writes, a checksum over the tensors
	Extra       map[string]string // other metadata; nil when there is none
}

func (p *Page) identity() identity {
	return identity{
		model: p.Model, sequence: p.Sequence, layout: p.Layout, layerFirst: p.LayerFirst,
		tokenFirst: p.TokenFirst, tokensTotal: p.TokensTotal, page: p.Page, pages: p.Pages,
	}
}

// biasKey is the metadata that says where the sender wants the cores' bias: biasKernel, which is the default, or biasFolded.
const (
	granuleKey = "granule" // cores of a head come in multiples of it
	maxGranule = 1024
	biasKey    = "bias"
	biasKernel = "kernel"
	biasFolded = "folded"
)

// tensors lists what the page holds, in a fixed order.
func (p *Page) tensors() []tensor {
	kv, scale := []int{p.Layers, p.KVHeads, p.Tokens, p.HeadDim}, []int{p.Layers, p.KVHeads}
	all := make([]tensor, 0, 11)
	add := func(name string, e element, data []byte, shape ...int) {
		all = append(all, tensor{name: name, elem: e, shape: shape, data: data})
	}
	add("k", p.DType.element(), p.K, kv...)
	add("v", p.DType.element(), p.V, kv...)
	add("token_ids", p.TokenIDs.element(), p.TokenIDs.b, p.Tokens)
	add("positions", p.Positions.element(), p.Positions.b, p.Tokens)
	if p.KScale != nil || p.DType.IsF8() {
		add("k_scale", elemF32, p.KScale, scale...)
	}
	if p.VScale != nil || p.DType.IsF8() {
		add("v_scale", elemF32, p.VScale, scale...)
	}
	if p.Q != nil {
		add("q", p.QDType.element(), p.Q, p.Layers, p.QHeads, p.Window, p.HeadDim)
	}
	if p.QPositions.b != nil {
		add("q_positions", p.QPositions.element(), p.QPositions.b, p.Window)
	}
	if p.Boundary != nil {
		add("boundary", elemU8, p.Boundary, p.Tokens)
	}
	if p.Protect != nil {
		add("protect", elemU8, p.Protect, p.Tokens)
	}
	if p.Importance != nil {
		add("importance", elemF32, p.Importance, p.Layers, p.KVHeads, p.Tokens)
	}
	return all
}
