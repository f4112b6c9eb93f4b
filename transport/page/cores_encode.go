package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Append writes the cores after dst in the form that they have, with a checksum, as Page.Append writes a page: deterministic, reusing dst's array,
// checking shapes and metadata and not the numbers within the tensors (see CheckCounts). On an error dst is returned
// as it was.
func (c *Cores) Append(dst []byte) ([]byte, error) {
	if err := c.checkShapes(); err != nil {
		return dst, err
	}
	meta := map[string]string{
		"format": FormatCores, "dtype": c.DType.String(), "tokens": strconv.Itoa(c.Tokens),
		"ratio": strconv.FormatFloat(c.Ratio, 'g', -1, 64),
	}
	if c.Slots != nil {
		meta[packedKey] = packedValue
	}
	if c.Folded {
		meta[foldedKey] = foldedValue
	}
	if c.Coded != nil {
		meta[bitsKey] = strconv.Itoa(c.Coded.Bits)
		if c.Coded.Interleaved {
			meta[interleavedKey] = interleavedValue
		}
	}
	c.identity().put(meta)
	for _, f := range c.texts() {
		if *f.value != "" {
			meta[f.key] = *f.value
		}
	}
	for key, value := range c.Fidelity {
		meta[fidelityPrefix+key] = value
	}
	if err := putExtra(meta, c.Extra, c.reserved); err != nil {
		return dst, err
	}
	return appendBlob(dst, meta, c.tensors(), true)
}

// reserved keeps Extra from passing for a field that is empty in this value.
func (c *Cores) reserved(key string) bool {
	for _, f := range c.texts() {
		if f.key == key {
			return true
		}
	}
	return key == checksumKey || key == packedKey || key == foldedKey || key == bitsKey || key == interleavedKey || strings.HasPrefix(key, fidelityPrefix)
}

func (c *Cores) checkShapes() error {
	if c.DType.Size() == 0 {
		return refuse(CodeBadDType, "the cores have no element type", c.DType, "BF16, F16, F32, F8E4M3 or F8E5M2")
	}
	if c.Tokens == 0 {
		return refuse(CodeEmpty, "the cores stand for no token", 0, "at least one token")
	}
	if err := unbounded.sizes("k", c.Layers, c.KVHeads, c.Cores, c.HeadDim); err != nil {
		return err
	}
	if err := c.checkSlots(); err != nil {
		return err
	}
	if err := c.identity().check(c.Tokens); err != nil {
		return err
	}
	if c.Coded != nil {
		if err := c.checkCodedShapes(); err != nil {
			return err
		}
	}
	if err := wantScale("k_scale", c.KScale != nil, c.DType); err != nil {
		return err
	}
	if err := wantScale("v_scale", c.VScale != nil, c.DType); err != nil {
		return err
	}
	return checkRatio(c.Ratio, fmt.Sprint(c.Ratio))
}

func checkRatio(ratio float64, got string) error {
	if !(ratio >= 0) || math.IsInf(ratio, 0) {
		return refuse(CodeBadMetadata, `metadata "ratio"`, got, "a finite number from 0")
	}
	return nil
}
