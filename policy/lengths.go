package policy

import (
	"cmp"
	"math"
	"slices"
)

// Lengths returns what Decide says of r at r's own length and at every other length, each policy digest once: r's own first,
// then those of shorter lengths, the nearest first, then those of longer ones. A sequence has met them when it was shorter, or another
// sequence with the same beginning has; what was stored then keeps its decision. The error is a *DeniedError.
func (s *Set) Lengths(r Request) ([]Decision, error) {
	own, err := s.Decide(r)
	if err != nil {
		return nil, err
	}
	out := []Decision{own}
	for _, tokens := range s.entry(r.Tenant).lengths(r.Tokens) {
		r.Tokens = tokens
		d, err := s.Decide(r)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(out, func(x Decision) bool { return x.PolicyDigest == d.PolicyDigest }) {
			out = append(out, d)
		}
	}
	return out, nil
}

// lengths are one of each range of lengths that the rules tell apart, those below tokens from the longest on, then the others from the shortest on.
func (t *tenant) lengths(tokens int) []int {
	var shorter, longer []int
	add := func(n int) {
		if n <= tokens {
			shorter = append(shorter, n)
		} else {
			longer = append(longer, n)
		}
	}
	add(0)
	for i := range t.rules {
		m := &t.rules[i].match
		add(m.MinTokens)
		if m.MaxTokens < math.MaxInt {
			add(m.MaxTokens + 1)
		}
	}
	slices.SortFunc(shorter, func(a, b int) int { return cmp.Compare(b, a) })
	slices.Sort(longer)
	return append(shorter, longer...)
}
