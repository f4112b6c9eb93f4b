package page

import (
	"fmt"
	"maps"
	"strconv"
)

const (
	splitHeader = 4096 // bytes of a blob before its tensors, without the page's own metadata
	coreBytes   = 16   // of a reply that merges nothing, for each token and head: count, bias, position, whose core it is
)

// Split divides the page into pages of at most `most` bytes, so that each reply fits as well, were nothing merged: by layers first, then
// by tokens, at blocks where the page is found by its prefix. The pieces share the page's memory, but for keys and
// values of a range of tokens, which are copied. A page that fits is returned alone. Page and Pages number the pieces.
func (p *Page) Split(most int64) ([]*Page, error) {
	row := int64(p.KVHeads) * int64(2*p.HeadDim*p.DType.Size()+coreBytes) // of a token in a layer; importance takes less than a core
	token := int64(p.TokenIDs.element().size + p.Positions.element().size + 2)
	layer := int64(len(p.Q)/p.Layers + 8*p.KVHeads)
	room := most - splitHeader - int64(8*p.Window)
	for k, v := range p.Extra {
		room -= int64(2*len(k) + 2*len(v))
	}
	tokens := p.Tokens
	layers := int((room - token*int64(tokens)) / (row*int64(tokens) + layer))
	if layers < 1 {
		layers = 1
		tokens = int((room - layer) / (row + token))
		block, err := p.block()
		if err != nil {
			return nil, err
		}
		if tokens >= block {
			tokens -= tokens % block
		}
		if tokens < 1 {
			return nil, refuse(CodeTooLarge, "one token of one layer does not fit", fmt.Sprintf("%d bytes", most), fmt.Sprintf("at least %d", row+token+layer+most-room))
		}
	}
	var out []*Page
	for at := 0; at < p.Tokens; at += tokens {
		piece, err := p.tokens(at, min(at+tokens, p.Tokens))
		if err != nil {
			return nil, err
		}
		for l := 0; l < p.Layers; l += layers {
			out = append(out, piece.layers(l, min(l+layers, p.Layers)))
		}
	}
	for i, piece := range out {
		piece.Page, piece.Pages = i, len(out)
	}
	if len(out) == 1 {
		out[0].Page, out[0].Pages = p.Page, p.Pages
	}
	return out, nil
}

// block is how many tokens the page's prefixes are counted in.
func (p *Page) block() (int, error) {
	if _, _, err := p.Span(); err != nil {
		return 0, err
	}
	if text, there := p.Extra[MetaPrefixBlock]; there {
		return strconv.Atoi(text)
	}
	return DefaultBlock, nil
}

// layers are those from first to end, counted in the page.
func (p *Page) layers(first, end int) *Page {
	q := *p
	part := func(b []byte) []byte { n := len(b) / p.Layers; return b[first*n : end*n : end*n] }
	q.LayerFirst, q.Layers = p.LayerFirst+first, end-first
	q.K, q.V, q.Q, q.KScale, q.VScale = part(p.K), part(p.V), part(p.Q), part(p.KScale), part(p.VScale)
	q.Importance = part(p.Importance)
	return &q
}

// tokens are those from first to end, counted in the page, in all layers.
func (p *Page) tokens(first, end int) (*Page, error) {
	if first == 0 && end == p.Tokens {
		return p, nil
	}
	q := *p
	q.TokenFirst, q.Tokens = p.TokenFirst+first, end-first
	row := p.HeadDim * p.DType.Size()
	q.K, q.V = p.rows(p.K, row, first, end), p.rows(p.V, row, first, end)
	if p.Importance != nil {
		q.Importance = p.rows(p.Importance, 4, first, end)
	}
	if p.Q != nil && p.QPositions.Len() == 0 && p.Window <= p.Tokens { // they are no longer the last tokens'
		q.QPositions = p.Positions.slice(p.Tokens-p.Window, p.Tokens)
	}
	q.TokenIDs, q.Positions = p.TokenIDs.slice(first, end), p.Positions.slice(first, end)
	if p.Boundary != nil {
		q.Boundary = p.Boundary[first:end]
	}
	if p.Protect != nil {
		q.Protect = p.Protect[first:end]
	}
	block, err := p.block()
	if err != nil || first == 0 {
		return &q, err
	}
	q.Extra = maps.Clone(p.Extra)
	delete(q.Extra, MetaPrefix)
	if at, known := p.link(); known && first%block == 0 {
		for i := 0; i < first; i += block {
			at = at.Next(block, func(k int) int64 { return p.TokenIDs.At(i + k) })
		}
		if q.Extra == nil {
			q.Extra = map[string]string{}
		}
		q.Extra[MetaPrefix] = at.String()
	}
	return &q, nil
}

// link is that at the page's first token, where the page says it.
func (p *Page) link() (Link, bool) {
	if text, there := p.Extra[MetaPrefix]; there {
		return parseLink(text)
	}
	block, err := p.block()
	return RootLink(block, p.Extra[MetaPrefixSalt]), err == nil && p.TokenFirst == 0
}

// rows copies what some tokens of every layer and head have, row bytes each.
func (p *Page) rows(b []byte, row, first, end int) []byte {
	planes := p.Layers * p.KVHeads
	out := make([]byte, 0, planes*(end-first)*row)
	for i := range planes {
		plane := b[i*p.Tokens*row:]
		out = append(out, plane[first*row:end*row]...)
	}
	return out
}

func (v Ints) slice(first, end int) Ints {
	size := v.element().size
	return Ints{b: v.b[first*size : end*size], wide: v.wide}
}
