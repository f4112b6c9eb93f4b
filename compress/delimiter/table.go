package delimiter

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Table holds the text and the class of every token id of one tokenizer. It is immutable: any number of goroutines may use
// it. Get one from [Load], [LoadFile] or a [Cache].
type Table struct {
	texts   []string
	classes []Class // with the bits below
}

const (
	present Class = 1 << 7 // the vocabulary has the id, even where its text is empty
	partial Class = 1 << 6 // begins or ends inside a character
	phrases Class = 1 << 5 // has letters of a script where spaces end phrases
)

// Size is one more than the largest id.
func (t *Table) Size() int { return len(t.classes) }

// Class is the set of delimiters in the text of token id alone; None when the vocabulary has no such id. A mark whose bytes
// are spread over several tokens is in the class of none of them: [Table.MarkBoundary] finds it.
func (t *Table) Class(id int64) Class {
	return t.entry(id) & (Sentence | Clause | Line)
}

func (t *Table) entry(id int64) Class {
	if id < 0 || id >= int64(len(t.classes)) {
		return None
	}
	return t.classes[id]
}

// Text is what token id stands for, as bytes: it may hold a part of a UTF-8 sequence that its neighbours complete, and
// begins with the space that separates it from the word before. It is false when the vocabulary has no such id.
func (t *Table) Text(id int64) (string, bool) {
	if t.entry(id)&present == 0 {
		return "", false
	}
	return t.texts[id], true
}

// MarkBoundary appends one byte per token, of n tokens, to dst and returns it: 1 for the token in which a delimiter of the
// text ends, else 0. This is the page's boundary tensor, U8 [tokens]. The caller owns dst; it is reused when its capacity
// allows.
func (t *Table) MarkBoundary(dst []byte, n int, at func(i int) int64) []byte {
	first := len(dst)
	s := scanner{phrase: -1, space: -1}
	for i := range n {
		dst = append(dst, 0)
		id := at(i)
		entry := t.entry(id)
		if entry&(Sentence|Clause|Line) != 0 {
			dst[first+i] = 1
		}
		switch {
		case entry&present == 0:
			s.reset()
		case entry&(partial|phrases) != 0 || s.busy():
			s.token(dst[first:], i, t.texts[id])
		}
	}
	return dst
}

// scanner reads a text over the borders of its tokens.
type scanner struct {
	held   [utf8.UTFMax]byte // the beginning of a character
	n      int
	phrase int // the token of the last letter, when its script has no spaces between words, else -1
	space  int // the token that is to be marked if such a letter comes after the spaces, else -1
}

// busy reports whether the next token's text matters beyond its own marks.
func (s *scanner) busy() bool { return s.n > 0 || s.phrase >= 0 || s.space >= 0 }

func (s *scanner) reset() { s.n, s.phrase, s.space = 0, -1, -1 }

// token reads token i, whose text is given, and sets the marks that it completes.
func (s *scanner) token(marks []byte, i int, text string) {
	for s.n > 0 && text != "" { // one character over a border
		s.held[s.n] = text[0]
		if !utf8.FullRune(s.held[:s.n+1]) {
			s.n, text = s.n+1, text[1:]
			continue
		}
		r, size := utf8.DecodeRune(s.held[:s.n+1])
		if size == s.n+1 {
			text = text[1:]
		} // else what was held is no character: forget it and begin anew with this byte
		s.n = 0
		if size > 1 {
			s.character(marks, i, r, false)
		}
	}
	for first := true; text != ""; first = false {
		if !utf8.FullRuneInString(text) {
			s.n = copy(s.held[:], text)
			return
		}
		r, size := utf8.DecodeRuneInString(text)
		s.character(marks, i, r, first)
		text = text[size:]
	}
}

// character takes the next one, which ends in token i and is the first of it or not.
func (s *scanner) character(marks []byte, i int, r rune, first bool) {
	switch {
	case classOf(r) != None:
		marks[i] = 1
		s.phrase, s.space = -1, -1
	case isSpaceless(r):
		if s.space >= 0 {
			marks[s.space] = 1
		}
		s.phrase, s.space = i, -1
	case isSpace(r):
		if s.phrase >= 0 { // a space that begins a token belongs to the word after it
			s.space = i
			if first {
				s.space = s.phrase
			}
		}
		s.phrase = -1
	case unicode.Is(unicode.Cf, r): // such as a zero-width space
	default:
		s.phrase, s.space = -1, -1
	}
}

// set records an entry. It is false when the id already stands for another text.
func (t *Table) set(id int, text string, replace bool) bool {
	if grow := id + 1 - len(t.classes); grow > 0 {
		t.classes = append(t.classes, make([]Class, grow)...)
		t.texts = append(t.texts, make([]string, grow)...)
	}
	if !replace && t.classes[id]&present != 0 && t.texts[id] != text {
		return false
	}
	t.texts[id] = text
	t.classes[id] = classify(text) | present
	if !utf8.ValidString(text) {
		t.classes[id] |= partial
	}
	if strings.ContainsFunc(text, isSpaceless) {
		t.classes[id] |= phrases
	}
	return true
}
