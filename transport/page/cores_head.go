package page

// HeadCores are the cores of one head, without padding: views, little-endian, of the cores that they were taken from.
type HeadCores struct {
	N         int    // cores of the head, at least 1
	K, V      []byte // [N, head_dim] of the cores' DType
	Counts    []byte // I32 [N], every one at least 1
	Bias      []byte // F32 [N], finite
	Positions []byte // F32 [N]
}

// Head is the cores of one head, alike in both forms; Assign's numbers are indices into them, or -1. Nothing is copied. The
// cores must be decoded, or sound in shape; like an index, a layer or head that they do not have panics. Of the packed
// form it walks the slots of the heads before this one.
func (c *Cores) Head(layer, head int) HeadCores {
	if layer < 0 || layer >= c.Layers || head < 0 || head >= c.KVHeads {
		panic("page: Head of a layer or head that the cores do not have")
	}
	first, n, plane := 0, 0, layer*c.KVHeads+head
	if c.Slots == nil {
		first = plane * c.Cores
		for n < c.Cores && int32At(c.Counts, first+n) > 0 {
			n++
		}
	} else {
		for before := range plane {
			first += int(int32At(c.Slots, before))
		}
		n = int(int32At(c.Slots, plane))
	}
	rows := func(b []byte, size int) []byte { return b[first*size : (first+n)*size : (first+n)*size] }
	row := c.DType.Size() * c.HeadDim
	return HeadCores{
		N: n, K: rows(c.K, row), V: rows(c.V, row),
		Counts: rows(c.Counts, 4), Bias: rows(c.Bias, 4), Positions: rows(c.Positions, 4),
	}
}
