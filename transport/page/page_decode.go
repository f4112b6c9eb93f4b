package page

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Tensors are the names of those that a page may have.
func Tensors() []string { return slices.Clone(pageTensors) }

var pageTensors = []string{"k", "v", "k_scale", "v_scale", "token_ids", "positions", "q", "q_positions", "boundary", "protect", "importance"}

// Decode reads a page. It copies no tensor: the page's slices alias blob, which must stay unchanged while the page is
// in use. Everything is checked, also the numbers, before a page is returned; every error is an *Error.
func Decode(blob []byte, lim Limits) (*Page, error) {
	lim = lim.orDefaults()
	c, err := open(blob, lim)
	if err != nil {
		return nil, err
	}
	p, rope := &Page{}, ""
	if rope, err = p.readMetadata(&c); err != nil {
		return nil, err
	}
	if err := c.onlyKnown(pageTensors); err != nil {
		return nil, err
	}
	if err := p.readKV(&c, lim); err != nil {
		return nil, err
	}
	if err := p.identity().check(p.Tokens); err != nil {
		return nil, err
	}
	if p.Rope, err = parseRope(rope, p.HeadDim); err != nil {
		return nil, err
	}
	if err := p.readTokens(&c); err != nil {
		return nil, err
	}
	if err := p.readQ(&c, lim); err != nil {
		return nil, err
	}
	if p.Checksummed {
		if err := verify(c.body, c.meta[checksumKey]); err != nil {
			return nil, err
		}
		delete(c.meta, checksumKey)
	}
	p.Extra = (&metadata{m: c.meta}).rest()
	if err := p.checkNumbers(); err != nil {
		return nil, err
	}
	return p, nil
}

// readMetadata fills everything but the rope, which is returned, and the checksum, which is left in the metadata.
func (p *Page) readMetadata(c *container) (rope string, err error) {
	m := &metadata{m: c.meta}
	m.format(FormatPage)
	id := m.identity()
	rope = m.take("rope")
	dtype := m.take("dtype")
	if _, has := m.m[granuleKey]; has {
		if p.Granule = m.whole(granuleKey); p.Granule < 1 || p.Granule > maxGranule {
			m.fault(CodeBadMetadata, granuleKey, fmt.Sprint(p.Granule), fmt.Sprintf("from 1 to %d", maxGranule))
		}
	}
	switch bias := m.optional(biasKey); bias {
	case "", biasKernel:
	case biasFolded:
		p.Folded = true
	default:
		m.fault(CodeBadMetadata, biasKey, quote(bias), quote(biasKernel)+" or "+quote(biasFolded))
	}
	if m.err != nil {
		return "", m.err
	}
	p.Model, p.Sequence, p.Layout = id.model, id.sequence, id.layout
	p.LayerFirst, p.TokenFirst, p.TokensTotal = id.layerFirst, id.tokenFirst, id.tokensTotal
	p.Page, p.Pages = id.page, id.pages
	_, p.Checksummed = c.meta[checksumKey]
	p.DType, err = ParseDType(dtype)
	return rope, err
}

// readKV takes the page's sizes from k and holds everything else against them.
func (p *Page) readKV(c *container, lim Limits) error {
	k, err := c.need("k")
	if err != nil {
		return err
	}
	if err := k.wantElement(p.DType.element()); err != nil {
		return err
	}
	if len(k.shape) != 4 {
		return k.badShape("[layers, kv_heads, tokens, head_dim]")
	}
	p.Layers, p.KVHeads, p.Tokens, p.HeadDim = k.shape[0], k.shape[1], k.shape[2], k.shape[3]
	if p.Tokens == 0 {
		return refuse(CodeEmpty, `tensor "k" holds no token`, fmt.Sprint(k.shape), "at least one token")
	}
	if err := lim.sizes("k", p.Layers, p.KVHeads, p.Tokens, p.HeadDim); err != nil {
		return err
	}
	p.K = k.data
	if p.V, err = c.exact("v", p.DType.element(), k.shape...); err != nil {
		return err
	}
	p.KScale, p.VScale, err = c.scales(p.DType, p.Layers, p.KVHeads)
	return err
}

func (p *Page) readTokens(c *container) (err error) {
	if p.TokenIDs, err = c.ints("token_ids", p.Tokens); err != nil {
		return err
	}
	if p.Positions, err = c.ints("positions", p.Tokens); err != nil {
		return err
	}
	if p.Boundary, err = c.exactIfAny("boundary", elemU8, p.Tokens); err != nil {
		return err
	}
	if p.Protect, err = c.exactIfAny("protect", elemU8, p.Tokens); err != nil {
		return err
	}
	p.Importance, err = c.exactIfAny("importance", elemF32, p.Layers, p.KVHeads, p.Tokens)
	return err
}

func (p *Page) readQ(c *container, lim Limits) error {
	q := c.find("q")
	if q == nil {
		if at := c.find("q_positions"); at != nil {
			return refuse(CodeBadShape, `tensor "q_positions" is there without tensor "q"`, fmt.Sprint(at.shape), "both or neither")
		}
		return nil
	}
	d, err := ParseDType(q.elem.name)
	if err != nil || d.IsF8() && d != p.DType {
		return refuse(CodeBadDType, `tensor "q" has a wrong element type`, q.elem.name, "BF16, F16, F32 or the page's "+p.DType.String())
	}
	if len(q.shape) != 4 || q.shape[0] != p.Layers || q.shape[3] != p.HeadDim || q.shape[1] < 1 || q.shape[2] < 1 || q.shape[1]%p.KVHeads != 0 {
		return q.badShape(fmt.Sprintf("[%d, a multiple of %d, window, %d]", p.Layers, p.KVHeads, p.HeadDim))
	}
	p.QHeads, p.Window, p.QDType, p.Q = q.shape[1], q.shape[2], d, q.data
	if err := lim.sizes("q", p.Layers, p.QHeads, p.Window, p.HeadDim); err != nil || c.find("q_positions") == nil {
		return err
	}
	p.QPositions, err = c.ints("q_positions", p.Window)
	return err
}

// checkNumbers reads every element once.
func (p *Page) checkNumbers() error {
	for i, last := 0, int64(-1); i < p.Tokens; i++ {
		at := p.Positions.At(i)
		if at <= last || at > math.MaxInt32 {
			return refuse(CodeBadPositions, fmt.Sprintf(`tensor "positions" does not rise at token %d`, i), at, fmt.Sprintf("more than %d, below 2^31", last))
		}
		last = at
	}
	for i := range p.Tokens {
		if id := p.TokenIDs.At(i); id < 0 || id > math.MaxInt32 {
			return refuse(CodeBadTokenIDs, fmt.Sprintf(`tensor "token_ids" holds no id at token %d`, i), id, "from 0 to 2^31-1")
		}
	}
	for i := range p.QPositions.Len() {
		if at := p.QPositions.At(i); at < 0 || at > math.MaxInt32 {
			return refuse(CodeBadPositions, fmt.Sprintf(`tensor "q_positions" holds no position at query %d`, i), at, "from 0 to 2^31-1")
		}
	}
	for i := 0; i < len(p.Importance); i += 4 {
		if x := math.Float32frombits(binary.LittleEndian.Uint32(p.Importance[i:])); !(x >= 0 && x <= math.MaxFloat32) {
			return refuse(CodeNotFinite, fmt.Sprintf(`tensor "importance" at layer %d, head %d, token %d`,
				i/4/p.Tokens/p.KVHeads, i/4/p.Tokens%p.KVHeads, i/4%p.Tokens), x, "a finite number from 0")
		}
	}
	for _, t := range []struct {
		name, row   string
		data        []byte
		dtype       DType
		heads, rows int
	}{
		{"k", "token", p.K, p.DType, p.KVHeads, p.Tokens},
		{"v", "token", p.V, p.DType, p.KVHeads, p.Tokens},
		{"q", "query", p.Q, p.QDType, p.QHeads, p.Window},
	} {
		if err := checkFinite(t.name, t.row, t.data, t.dtype, t.heads, t.rows, p.HeadDim); err != nil {
			return err
		}
	}
	if err := checkScales("k_scale", p.KScale, p.KVHeads); err != nil {
		return err
	}
	return checkScales("v_scale", p.VScale, p.KVHeads)
}
