package page

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// Digest is the page's content address: SHA-256 over everything that determines what compressing it gives (the model,
// the layout, the rope, the element types and shapes, where the page lies in the model and in the sequence, every
// tensor), and over nothing else: not the sequence's id, not the numbering of pages, not a trace, not extra metadata.
// Equal content sent twice, by anybody, has one digest.
func (p *Page) Digest() [32]byte {
	h := sha256.New()
	hashString(h, "semproxy.page.digest.v1")
	hashString(h, p.Model)
	hashString(h, p.Layout)
	hashString(h, p.Rope.json())
	hashNumbers(h, p.LayerFirst, p.TokenFirst, p.TokensTotal)
	if p.Folded {
		hashString(h, biasFolded)
	}
	if p.Granule > 0 {
		hashString(h, granuleKey)
		hashNumbers(h, p.Granule)
	}
	for _, t := range p.tensors() {
		hashString(h, t.name)
		hashString(h, t.elem.name)
		hashNumbers(h, len(t.shape))
		hashNumbers(h, t.shape...)
		hashNumbers(h, len(t.data))
		h.Write(t.data)
	}
	return [32]byte(h.Sum(nil))
}

// hashString hashes the length first, so that no two lists of strings run together.
func hashString(h hash.Hash, s string) {
	hashNumbers(h, len(s))
	h.Write([]byte(s))
}

func hashNumbers(h hash.Hash, numbers ...int) {
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
}
