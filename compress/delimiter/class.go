package delimiter

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Class is a set of the kinds of delimiter that a token's text contains.
type Class uint8

// The kinds of delimiter. A token may be of several: ".\n" is Sentence|Line.
const (
	None     Class = 0
	Sentence Class = 1 << (iota - 1) // ends a sentence: . ! ? and what other scripts write for them
	Clause                           // ends a clause: , ; : and what other scripts write for them
	Line                             // a line separator
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

// classify collects the marks of the whole characters of a text; parts of one at its ends are passed over.
func classify(text string) Class {
	c := None
	for _, r := range text {
		c |= classOf(r)
	}
	return c
}

// classOf is the kind of one character. The broken byte that range gives for a part of a character is none.
func classOf(r rune) Class {
	switch {
	case r < utf8.RuneSelf:
		switch r {
		case '.', '!', '?':
			return Sentence
		case ',', ';', ':':
			return Clause
		case '\n', '\r':
			return Line
		}
		return None
	case r == '\u0085', r == '\u2028', r == '\u2029':
		return Line
	case unicode.In(r, unicode.Sentence_Terminal, moreSentence):
		return Sentence
	case unicode.In(r, unicode.Terminal_Punctuation, moreClause):
		return Clause
	}
	return None
}

// moreSentence are marks that end a sentence without having the property: ellipses, numbers with a full stop and the vertical
// forms, which are compatible with ASCII marks; marks whose character's name says it; ornaments used as marks.
var moreSentence = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x1801, Hi: 0x1801, Stride: 1}, // Mongolian ellipsis
	{Lo: 0x2024, Hi: 0x2026, Stride: 1},
	{Lo: 0x22ef, Hi: 0x22ef, Stride: 1}, // ⋯, an ellipsis in Chinese texts
	{Lo: 0x2488, Hi: 0x249b, Stride: 1},
	{Lo: 0x2753, Hi: 0x2755, Stride: 1}, {Lo: 0x2757, Hi: 0x2757, Stride: 1}, {Lo: 0x2762, Hi: 0x2763, Stride: 1},
	{Lo: 0x2cf9, Hi: 0x2cfb, Stride: 1}, {Lo: 0x2cfe, Hi: 0x2cfe, Stride: 1}, // Coptic
	{Lo: 0x33c2, Hi: 0x33c2, Stride: 1}, {Lo: 0x33c7, Hi: 0x33c7, Stride: 1}, {Lo: 0x33d8, Hi: 0x33d8, Stride: 1},
	{Lo: 0xfe12, Hi: 0xfe12, Stride: 1}, {Lo: 0xfe15, Hi: 0xfe16, Stride: 1}, {Lo: 0xfe19, Hi: 0xfe19, Stride: 1},
	{Lo: 0xfe30, Hi: 0xfe30, Stride: 1},
}, R32: []unicode.Range32{{Lo: 0x1f100, Hi: 0x1f100, Stride: 1}}}

// moreClause are commas, colons and semicolons without the property. Armenian's question and exclamation marks are not among
// them: they stand on a vowel inside the word.
var moreClause = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x055d, Hi: 0x055d, Stride: 1}, // Armenian comma
	{Lo: 0x204f, Hi: 0x204f, Stride: 1},
	{Lo: 0x2a74, Hi: 0x2a74, Stride: 1}, // ::=
	{Lo: 0x2e32, Hi: 0x2e32, Stride: 1}, {Lo: 0x2e34, Hi: 0x2e35, Stride: 1}, {Lo: 0x2e49, Hi: 0x2e49, Stride: 1},
	{Lo: 0xfe10, Hi: 0xfe11, Stride: 1}, {Lo: 0xfe13, Hi: 0xfe14, Stride: 1},
}, R32: []unicode.Range32{{Lo: 0x1f101, Hi: 0x1f10a, Stride: 1}}}

// spaceless are scripts that write no space between words: there a space between two letters ends a phrase, and often no
// other mark does.
var spaceless = []*unicode.RangeTable{
	unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Tai_Le, unicode.New_Tai_Lue, unicode.Tai_Tham, unicode.Tai_Viet, unicode.Ahom,
}

// isSpaceless reports whether r is a letter, or a sign on one, of a script without spaces between words.
func isSpaceless(r rune) bool {
	return r >= 0x0e00 && unicode.In(r, spaceless...) && !unicode.In(r, unicode.N, unicode.P, unicode.S)
}

// isSpace reports whether r parts phrases of such a script.
func isSpace(r rune) bool { return r == ' ' || r == '\u00a0' || r == '\u3000' }
