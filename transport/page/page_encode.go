package page

import (
	"fmt"
	"strconv"
)

// Append writes the page after dst, as append does, and returns the longer slice; dst's array is reused when it is
// large enough. The same page always gives the same bytes. Shapes, sizes and metadata are checked, so that Decode
// finds nothing to refuse in them; the numbers within the tensors are not. On an error dst is returned as it was.
func (p *Page) Append(dst []byte) ([]byte, error) {
	if err := p.checkShapes(); err != nil {
		return dst, err
	}
	meta := map[string]string{"format": FormatPage, "dtype": p.DType.String(), "rope": p.Rope.json()}
	p.identity().put(meta)
	if p.Folded {
		meta[biasKey] = biasFolded
	}
	if p.Granule > 0 {
		meta[granuleKey] = strconv.Itoa(p.Granule)
	}
	own := func(key string) bool { return key == checksumKey || key == biasKey || key == granuleKey }
	if err := putExtra(meta, p.Extra, own); err != nil {
		return dst, err
	}
	return appendBlob(dst, meta, p.tensors(), p.Checksummed)
}

// checkShapes checks what the tensors' lengths alone do not say.
func (p *Page) checkShapes() error {
	if p.DType.Size() == 0 {
		return refuse(CodeBadDType, "the page has no element type", p.DType, "BF16, F16, F32, F8E4M3 or F8E5M2")
	}
	if p.Granule < 0 || p.Granule > maxGranule {
		return refuse(CodeBadMetadata, fmt.Sprintf("metadata %q", granuleKey), p.Granule, fmt.Sprintf("from 1 to %d, or 0 for none", maxGranule))
	}
	if p.Tokens == 0 {
		return refuse(CodeEmpty, "the page holds no token", 0, "at least one token")
	}
	if err := unbounded.sizes("k", p.Layers, p.KVHeads, p.Tokens, p.HeadDim); err != nil {
		return err
	}
	if err := p.identity().check(p.Tokens); err != nil {
		return err
	}
	if err := p.Rope.check(p.HeadDim); err != nil {
		return err
	}
	if err := wantScale("k_scale", p.KScale != nil, p.DType); err != nil {
		return err
	}
	if err := wantScale("v_scale", p.VScale != nil, p.DType); err != nil {
		return err
	}
	if p.Q == nil {
		if p.QDType != 0 || p.QHeads != 0 || p.Window != 0 || p.QPositions.b != nil {
			return refuse(CodeBadShape, `tensor "q" is absent, its sizes are not`, fmt.Sprintf("%v, q_heads %d, window %d", p.QDType, p.QHeads, p.Window), "all 0")
		}
		return nil
	}
	if p.QDType.Size() == 0 || p.QDType.IsF8() && p.QDType != p.DType {
		return refuse(CodeBadDType, `tensor "q" has a wrong element type`, p.QDType, "BF16, F16, F32 or the page's own")
	}
	if p.QHeads%p.KVHeads != 0 {
		return refuse(CodeBadShape, `tensor "q" has a wrong number of heads`, p.QHeads, fmt.Sprintf("a multiple of %d", p.KVHeads))
	}
	return unbounded.sizes("q", p.Layers, p.QHeads, p.Window, p.HeadDim)
}
