package page

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/semproxy/semproxy/transport/page/bits"
)

// Beside K and V the coded form leaves out what follows from the rest:
//   - counts: every entry stands for one token, and there is no padding;
//   - bias: the logarithm of the count, or 0 where the keys are folded;
//   - positions have one dimension, [cores], where all heads have the same.

// tensors lists what the coded form holds, in a fixed order.
func (x *Coded) tensors(c *Cores) []tensor {
	heads, rows := []int{c.Layers, c.KVHeads}, c.rows()
	codes := append(slices.Clone(rows), bits.RowBytes(c.HeadDim, x.Bits))
	all := []tensor{
		{name: "k", elem: elemU8, shape: codes, data: x.K},
		{name: "v", elem: elemU8, shape: codes, data: x.V},
		{name: "k_scale", elem: BF16.element(), shape: rows, data: x.KScale},
		{name: "v_scale", elem: BF16.element(), shape: rows, data: x.VScale},
	}
	if !c.single() {
		all = append(all, tensor{name: "counts", elem: elemI32, shape: rows, data: c.Counts})
	}
	if !c.plainBias() {
		all = append(all, tensor{name: "bias", elem: elemF32, shape: rows, data: c.Bias})
	}
	if c.together() {
		all = append(all, tensor{name: "positions", elem: elemF32, shape: []int{c.Cores}, data: c.Positions[:4*c.Cores]})
	} else {
		all = append(all, tensor{name: "positions", elem: elemF32, shape: rows, data: c.Positions})
	}
	if x.KMean != nil {
		all = append(all, tensor{name: "k_mean", elem: BF16.element(), shape: append(slices.Clone(heads), c.HeadDim), data: x.KMean})
	}
	if n := x.first(c); n > 0 {
		shape := append(slices.Clone(heads), n, c.HeadDim)
		all = append(all, tensor{name: "k_first", elem: c.DType.element(), shape: shape, data: x.KFirst},
			tensor{name: "v_first", elem: c.DType.element(), shape: shape, data: x.VFirst})
	}
	if x.Frequencies != nil {
		all = append(all, tensor{name: "frequencies", elem: elemF32, shape: []int{len(x.Frequencies) / 4}, data: x.Frequencies})
	}
	return all
}

// single reports whether every entry stands for one token.
func (c *Cores) single() bool {
	if c.Slots != nil {
		return false
	}
	for i := range len(c.Counts) / 4 {
		if int32At(c.Counts, i) != 1 {
			return false
		}
	}
	return true
}

// plainBias reports whether the bias is the one that follows from the count everywhere, to the bit.
func (c *Cores) plainBias() bool {
	for i := range len(c.Counts) / 4 {
		if binary.LittleEndian.Uint32(c.Bias[4*i:]) != math.Float32bits(c.biasOf(int32At(c.Counts, i))) {
			return false
		}
	}
	return true
}

// biasOf is ln(count), or 0 where the keys are folded; -Inf for padding. CheckCounts refuses negative counts.
func (c *Cores) biasOf(count int32) float32 {
	if c.Folded && count > 0 {
		return 0
	}
	return float32(math.Log(float64(max(count, 0))))
}

// together reports whether all heads have the same positions.
func (c *Cores) together() bool {
	if c.Slots != nil {
		return false
	}
	row := 4 * c.Cores
	for at := row; at < len(c.Positions); at += row {
		if !bytes.Equal(c.Positions[at:at+row], c.Positions[:row]) {
			return false
		}
	}
	return true
}

// readCoded reads the coded form: the sizes have been read off k, whose last dimension is that of the codes.
func (c *Cores) readCoded(in *container, k *tensor, lim Limits) (err error) {
	x := c.Coded
	rows, heads := k.shape[:len(k.shape)-1], []int{c.Layers, c.KVHeads}
	dim := c.HeadDim * 8 / x.Bits
	if c.HeadDim = dim; dim%2 != 0 || dim > min(lim.MaxHeadDim, bits.MaxDim) {
		return refuse(CodeBadShape, `tensor "k" has an unusable head_dim`, dim, fmt.Sprintf("even, at most %d", min(lim.MaxHeadDim, bits.MaxDim)))
	}
	entries := 1
	for _, n := range rows {
		entries *= n
	}
	if size, ok := product(entries, dim, c.DType.Size(), 2); !ok || int64(size) > lim.MaxBytes {
		return refuse(CodeTooLarge, "the keys and values of the codes are too large", fmt.Sprintf("%d rows of %d %s", entries, dim, c.DType), fmt.Sprintf("at most %d bytes", lim.MaxBytes))
	}
	x.K = k.data
	if x.V, err = in.exact("v", elemU8, k.shape...); err != nil {
		return err
	}
	if x.KScale, err = in.exact("k_scale", BF16.element(), rows...); err != nil {
		return err
	}
	if x.VScale, err = in.exact("v_scale", BF16.element(), rows...); err != nil {
		return err
	}
	if x.KMean, err = in.exactIfAny("k_mean", BF16.element(), append(slices.Clone(heads), dim)...); err != nil {
		return err
	}
	if f := in.find("k_first"); f != nil {
		if len(f.shape) != 4 || f.shape[2] < 1 || f.shape[2] > c.Cores {
			return f.badShape(fmt.Sprintf("[layers, kv_heads, first, head_dim], first 1 to %d", c.Cores))
		}
		shape := append(slices.Clone(heads), f.shape[2], dim)
		if x.KFirst, err = in.exact("k_first", c.DType.element(), shape...); err != nil {
			return err
		}
		if x.VFirst, err = in.exact("v_first", c.DType.element(), shape...); err != nil {
			return err
		}
	} else if in.find("v_first") != nil {
		return refuse(CodeMissingTensor, `tensor "k_first" is missing`, "v_first", "both")
	}
	if f := in.find("frequencies"); f != nil {
		if len(f.shape) != 1 || f.shape[0] < 1 || 2*f.shape[0] > dim || x.KMean == nil {
			return f.badShape(fmt.Sprintf("[pairs], 1 to %d, beside k_mean", dim/2))
		}
		if x.Frequencies, err = in.exact("frequencies", elemF32, f.shape...); err != nil {
			return err
		}
	}
	if x.Interleaved && x.Frequencies == nil {
		return refuse(CodeBadMetadata, `metadata "interleaved"`, "no frequencies", "it only beside them")
	}
	if err := x.check(c); err != nil {
		return err
	}
	return c.fillIn(in, rows, entries)
}

// fillIn reads counts, bias and positions, and makes those that were left out.
func (c *Cores) fillIn(in *container, rows []int, entries int) (err error) {
	if c.Counts, err = in.exactIfAny("counts", elemI32, rows...); err != nil {
		return err
	}
	if c.Counts == nil {
		c.Counts = make([]byte, 0, 4*entries)
		for range entries {
			c.Counts = binary.LittleEndian.AppendUint32(c.Counts, 1)
		}
	}
	if c.Bias, err = in.exactIfAny("bias", elemF32, rows...); err != nil {
		return err
	}
	if c.Bias == nil {
		c.Bias = make([]byte, 0, 4*entries)
		for i := range entries {
			c.Bias = binary.LittleEndian.AppendUint32(c.Bias, math.Float32bits(c.biasOf(int32At(c.Counts, i))))
		}
	}
	if p := in.find("positions"); p != nil && c.Slots == nil && slices.Equal(p.shape, []int{c.Cores}) {
		if err := p.wantElement(elemF32); err != nil {
			return err
		}
		c.Positions = slices.Repeat(p.data, c.Layers*c.KVHeads)
		return nil
	}
	c.Positions, err = in.exact("positions", elemF32, rows...)
	return err
}

// expand makes K and V of the codes.
func (c *Cores) expand() error {
	n := len(c.Counts) / 4 * c.HeadDim * c.DType.Size()
	c.K, c.V = make([]byte, n), make([]byte, n)
	if !c.Coded.decode(c, c.K, c.V) {
		return refuse(CodeNotFinite, "the codes stand for numbers beyond the element type", "NaN or Inf", "finite "+c.DType.String())
	}
	return nil
}

// checkCodedShapes refuses what Append could not write: tensors whose sizes do not fit. What is read off counts, bias and
// positions must be there first.
func (c *Cores) checkCodedShapes() error {
	x := c.Coded
	if !bits.Valid(x.Bits) || c.DType.IsF8() || c.HeadDim%2 != 0 || c.HeadDim > bits.MaxDim {
		return refuse(CodeBadShape, "the cores cannot be coded", fmt.Sprintf("%d bits, %s, head_dim %d", x.Bits, c.DType, c.HeadDim), "4 or 8 bits of BF16, F16 or F32, an even head_dim")
	}
	rows := c.rows()
	for _, t := range []tensor{
		{name: "counts", elem: elemI32, shape: rows, data: c.Counts},
		{name: "bias", elem: elemF32, shape: rows, data: c.Bias},
		{name: "positions", elem: elemF32, shape: rows, data: c.Positions},
	} {
		if err := t.check(); err != nil {
			return err
		}
	}
	return nil
}
