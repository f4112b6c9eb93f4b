package page

import (
	"fmt"
	"math"
)

// rows is the shape of the counts: by layer, head and core, or one after the other. The slots must have been checked.
func (c *Cores) rows() []int {
	if c.Slots == nil {
		return []int{c.Layers, c.KVHeads, c.Cores}
	}
	entries := 0
	for plane := range c.Layers * c.KVHeads {
		entries += int(int32At(c.Slots, plane))
	}
	return []int{entries}
}

// spans yields, head by head in row-major order of (layer, head), where its entries begin and how many they are: of the
// padded form the padding is one of them. The sizes and slots must have been checked.
func (c *Cores) spans(yield func(first, n int) bool) {
	first := 0
	for plane := range c.Layers * c.KVHeads {
		n := c.Cores
		if c.Slots != nil {
			n = int(int32At(c.Slots, plane))
		}
		if !yield(first, n) {
			return
		}
		first += n
	}
}

// where is the head that an entry belongs to, and which of its cores it is.
func (c *Cores) where(entry int) (layer, head, core int) {
	plane := 0
	for first, n := range c.spans {
		if entry < first+n {
			return plane / c.KVHeads, plane % c.KVHeads, entry - first
		}
		plane++
	}
	return c.Layers, 0, 0
}

// sumSlots adds up the slots of the packed form: [layers, kv_heads], at least one core for every head. It allocates
// nothing that grows with them.
func (c *Cores) sumSlots() (entries, largest int, err error) {
	slots := tensor{name: "slots", elem: elemI32, shape: []int{c.Layers, c.KVHeads}, data: c.Slots}
	if err := slots.check(); err != nil {
		return 0, 0, err
	}
	for plane := range c.Layers * c.KVHeads {
		n := int(int32At(c.Slots, plane))
		if n < 1 {
			return 0, 0, c.badCount(plane, `tensor "slots" leaves no core`, n, "at least 1")
		}
		if n > math.MaxInt-entries {
			return 0, 0, refuse(CodeTooLarge, `tensor "slots" has a sum that overflows`, n, "less than 2^63 entries")
		}
		entries, largest = entries+n, max(largest, n)
	}
	return entries, largest, nil
}

// checkSlots holds the slots of cores that this process made against the sizes. The padded form has none to check.
func (c *Cores) checkSlots() error {
	if c.Slots == nil {
		return nil
	}
	_, largest, err := c.sumSlots()
	if err == nil && largest != c.Cores {
		err = refuse(CodeBadShape, "the number of cores is not the largest of the slots", c.Cores, largest)
	}
	return err
}

// readPacked reads the sizes of the packed form off slots, [layers, kv_heads], and k, [entries, head_dim].
func (c *Cores) readPacked(in *container, k *tensor, lim Limits) error {
	if len(k.shape) != 2 {
		return k.badShape("[entries, head_dim]")
	}
	slots, err := in.need("slots")
	if err != nil {
		return err
	}
	if err := slots.wantElement(elemI32); err != nil {
		return err
	}
	if len(slots.shape) != 2 {
		return slots.badShape("[layers, kv_heads]")
	}
	if k.shape[0] == 0 {
		return c.empty(k)
	}
	c.Layers, c.KVHeads, c.HeadDim, c.Slots = slots.shape[0], slots.shape[1], k.shape[1], slots.data
	if err := lim.sizes("slots", c.Layers, c.KVHeads, 1, 1); err != nil {
		return err
	}
	if err := lim.sizes("k", 1, 1, 1, c.HeadDim); err != nil {
		return err
	}
	entries, largest, err := c.sumSlots()
	if err != nil {
		return err
	}
	if largest > lim.MaxTokens {
		return refuse(CodeTooLarge, `tensor "slots" has too many cores for a head`, largest, fmt.Sprintf("at most %d", lim.MaxTokens))
	}
	if entries != k.shape[0] {
		return refuse(CodeBadShape, `tensor "slots" does not sum to the entries of tensor "k"`, entries, k.shape[0])
	}
	c.Cores = largest
	return nil
}
