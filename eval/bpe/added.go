package bpe

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that stands beside the vocabulary: it is found in the text before anything is split or merged.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no letter or digit touches it
	Left       bool   `json:"lstrip"`      // takes the space before it
	Right      bool   `json:"rstrip"`      // takes the space behind it
	Normalized bool   `json:"normalized"`  // looked for in the normalized text
}

// added finds tokens in a text: at each place the longest.
type added struct {
	tokens [256][]addedToken // by their first byte, the longest first
}

// newAdded takes the tokens that are normalized, or those that are not. The steps are what happens to the text before they are looked
// for. It is nil when there are none.
func newAdded(all []addedToken, normalized bool, steps []step) *added {
	a, some := &added{}, false
	for _, t := range all {
		if t.Normalized != normalized {
			continue
		}
		for _, f := range steps {
			t.Content = f(t.Content)
		}
		if t.Content == "" {
			continue
		}
		a.tokens[t.Content[0]], some = append(a.tokens[t.Content[0]], t), true
	}
	if !some {
		return nil
	}
	for _, list := range &a.tokens {
		slices.SortStableFunc(list, func(x, y addedToken) int { return cmp.Compare(len(y.Content), len(x.Content)) })
	}
	return a
}

// part is a stretch of text, or an added token.
type part struct {
	text  string
	id    int32 // -1: text
	start bool  // the whole begins with it
}

// cut yields the text in parts. A nil a finds nothing.
func (a *added) cut(text string) iter.Seq[part] {
	return func(yield func(part) bool) {
		done := 0 // everything before has been yielded
		for i := 0; a != nil && i < len(text); i++ {
			t := a.at(text, i)
			if t == nil {
				continue
			}
			from, to := i, i+len(t.Content)
			if t.SingleWord && !alone(text[:from], text[to:]) {
				i = to - 1
				continue
			}
			if t.Left {
				from = max(done, len(strings.TrimRightFunc(text[:from], unicode.IsSpace)))
			}
			if t.Right {
				to = len(text) - len(strings.TrimLeftFunc(text[to:], unicode.IsSpace))
			}
			if from > done && !yield(part{text[done:from], -1, done == 0}) {
				return
			}
			if !yield(part{text[from:to], t.ID, from == 0}) {
				return
			}
			done, i = to, to-1
		}
		if done < len(text) {
			yield(part{text[done:], -1, done == 0})
		}
	}
}

// at is the longest token that the text has at i, nil: none.
func (a *added) at(text string, i int) *addedToken {
	list := a.tokens[text[i]]
	for k := range list {
		if strings.HasPrefix(text[i:], list[k].Content) {
			return &list[k]
		}
	}
	return nil
}

// alone says whether no word touches what stands between the two.
func alone(before, behind string) bool {
	last, _ := utf8.DecodeLastRuneInString(before)
	first, _ := utf8.DecodeRuneInString(behind)
	word := func(s string, r rune) bool {
		return s != "" && (unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || r == '_')
	}
	return !word(before, last) && !word(behind, first)
}
