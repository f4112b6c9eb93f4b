package delimiter

import "strings"

// Class is a set of the kinds of delimiter that a token's text contains.
type Class uint8

// The kinds of delimiter. A token may be of several: ".\n" is Sentence|Line.
const (
	None     Class = 0
	Sentence Class = 1 << (iota - 1) // one of . ! ?
	Clause                           // one of , ; :
	Line                             // a newline
)

// String names the kinds, such as "sentence|line"; "none" for None.
func (c Class) String() string {
	var names []string
	for _, k := range []struct {
		bit  Class
		name string
	}{{Sentence, "sentence"}, {Clause, "clause"}, {Line, "line"}} {
		if c&k.bit != 0 {
			names = append(names, k.name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, "|")
}

// classify looks at bytes, not runes: the marks are ASCII, and a token may hold a part of a rune.
func classify(text string) Class {
	c := None
	for i := range len(text) {
		switch text[i] {
		case '.', '!', '?':
			c |= Sentence
		case ',', ';', ':':
			c |= Clause
		case '\n':
			c |= Line
		}
	}
	return c
}
