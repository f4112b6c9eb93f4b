package page

import (
	"fmt"
	"math"
)

// CheckCounts proves that nothing was lost without being said: of every head the counts and the dropped tokens sum to the
// tokens given, and not all are dropped; a count of 0 is padding, stands only at the end and has bias -inf, every other
// bias is finite, and 0 where the keys are folded; and, where there is an assignment, it gives every core exactly as many tokens as its count, and no core
// (-1) to as many as were dropped. The packed form has no padding, and every head as many counts as its slots say. It
// allocates one counter per core of a head and only with Assign.
func (c *Cores) CheckCounts() error {
	if err := unbounded.sizes("k", c.Layers, c.KVHeads, c.Cores, c.HeadDim); err != nil {
		return err
	}
	if err := c.checkSlots(); err != nil {
		return err
	}
	rows := c.rows()
	tensors := []tensor{
		{name: "counts", elem: elemI32, shape: rows, data: c.Counts},
		{name: "bias", elem: elemF32, shape: rows, data: c.Bias},
	}
	if c.Assign != nil {
		tensors = append(tensors, tensor{name: "assign", elem: elemI32, shape: []int{c.Layers, c.KVHeads, c.Tokens}, data: c.Assign})
	}
	if c.Dropped != nil {
		tensors = append(tensors, tensor{name: "dropped", elem: elemI32, shape: []int{c.Layers, c.KVHeads}, data: c.Dropped})
	}
	for _, t := range tensors {
		if err := t.check(); err != nil {
			return err
		}
	}
	var given []int32
	if c.Assign != nil {
		given = make([]int32, c.Cores)
	}
	head := 0
	for first, n := range c.spans {
		if err := c.checkHead(head, first, n); err != nil {
			return err
		}
		if c.Assign != nil {
			if err := c.checkAssign(head, first, given[:n]); err != nil {
				return err
			}
		}
		head++
	}
	return nil
}

func (c *Cores) badCount(head int, what string, got, want any) error {
	return refuse(CodeBadCounts, fmt.Sprintf("%s at layer %d, head %d", what, head/c.KVHeads, head%c.KVHeads), got, want)
}

// checkHead reads the entries first to first+entries of a head.
func (c *Cores) checkHead(head, first, entries int) error {
	sum, padding := 0, false
	for i := range entries {
		n, bias := int32At(c.Counts, first+i), float64(float32At(c.Bias, first+i))
		switch {
		case n < 0:
			return c.badCount(head, fmt.Sprintf(`tensor "counts" is negative for core %d`, i), n, "at least 0")
		case n == 0 && c.Slots != nil:
			return c.badCount(head, fmt.Sprintf(`tensor "counts" has padding for core %d of the packed form`, i), n, "at least 1")
		case n > 0 && padding:
			return c.badCount(head, fmt.Sprintf(`tensor "counts" has core %d after padding`, i), n, "padding only at the end")
		case n == 0 && !math.IsInf(bias, -1):
			return c.badCount(head, fmt.Sprintf(`tensor "bias" lets attention see the padding %d`, i), bias, "-Inf")
		case n > 0 && (math.IsNaN(bias) || math.IsInf(bias, 0)):
			return c.badCount(head, fmt.Sprintf(`tensor "bias" is not finite for core %d`, i), bias, "a finite number")
		case n > 0 && c.Folded && bias != 0:
			return c.badCount(head, fmt.Sprintf(`tensor "bias" of core %d would be added a second time: the keys are folded`, i), bias, "0")
		}
		padding = n == 0
		sum += int(n)
	}
	dropped, err := c.dropped(head)
	if err == nil && sum+dropped != c.Tokens {
		what := `tensor "counts" does not sum to the tokens given`
		if c.Dropped != nil {
			what = `tensors "counts" and "dropped" do not sum to the tokens given`
		}
		err = c.badCount(head, what, sum+dropped, c.Tokens)
	}
	return err
}

// dropped is how many tokens of a head no core stands for: never all of them.
func (c *Cores) dropped(head int) (int, error) {
	if c.Dropped == nil {
		return 0, nil
	}
	n := int(int32At(c.Dropped, head))
	if n < 0 || n >= c.Tokens {
		return 0, c.badCount(head, `tensor "dropped" is out of range`, n, fmt.Sprintf("from 0 to %d", c.Tokens-1))
	}
	return n, nil
}

// checkAssign counts the tokens of each core into given, its scratch, one for each entry of the head, and compares.
func (c *Cores) checkAssign(head, first int, given []int32) error {
	clear(given)
	dropped, want := 0, 0
	if c.Dropped != nil {
		want = int(int32At(c.Dropped, head))
	}
	for i := range c.Tokens {
		core := int32At(c.Assign, head*c.Tokens+i)
		if core == -1 && c.Dropped != nil {
			dropped++
			continue
		}
		if core < 0 || int(core) >= len(given) {
			return c.badCount(head, fmt.Sprintf(`tensor "assign" gives token %d to no core`, i), core, fmt.Sprintf("from 0 to %d", len(given)-1))
		}
		given[core]++
	}
	if dropped != want {
		return c.badCount(head, `tensor "assign" disagrees with the dropped tokens`, dropped, want)
	}
	for i, got := range given {
		if want := int32At(c.Counts, first+i); got != want {
			return c.badCount(head, fmt.Sprintf(`tensor "assign" disagrees with the count of core %d`, i), got, want)
		}
	}
	return nil
}
