package delimiter

// Table holds the text and the class of every token id of one tokenizer. It is immutable: any number of goroutines may use
// it. Get one from [Load], [LoadFile] or a [Cache].
type Table struct {
	texts   []string
	classes []Class // with present set where the vocabulary has the id
}

// present distinguishes an entry with no text from an id that the vocabulary skips.
const present Class = 1 << 7

// Size is one more than the largest id.
func (t *Table) Size() int { return len(t.classes) }

// Class is the set of delimiters in the text of token id; None when the vocabulary has no such id.
func (t *Table) Class(id int64) Class {
	if id < 0 || id >= int64(len(t.classes)) {
		return None
	}
	return t.classes[id] &^ present
}

// Text is what token id stands for, as bytes: it may hold a part of a UTF-8 sequence that its neighbours complete, and
// begins with the space that separates it from the word before. It is false when the vocabulary has no such id.
func (t *Table) Text(id int64) (string, bool) {
	if id < 0 || id >= int64(len(t.classes)) || t.classes[id]&present == 0 {
		return "", false
	}
	return t.texts[id], true
}

// MarkBoundary appends one byte per token, of n tokens, to dst and returns it: 1 where the text of token at(i) contains
// one of . , ; : ! ? or a newline, else 0. This is the page's boundary tensor, U8 [tokens]. The caller owns dst; it is
// reused when its capacity allows.
func (t *Table) MarkBoundary(dst []byte, n int, at func(i int) int64) []byte {
	for i := range n {
		mark := byte(0)
		if t.Class(at(i)) != None {
			mark = 1
		}
		dst = append(dst, mark)
	}
	return dst
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
	return true
}
