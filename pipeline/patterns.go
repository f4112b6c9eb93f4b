package pipeline

import (
	"fmt"
	"strings"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
)

// NoTokenizerError refuses a page whose policy protects texts, because nobody knows its tokens' texts. It is final.
type NoTokenizerError struct{ Model, Profile string }

// Code is policy.no_tokenizer.
func (*NoTokenizerError) Code() string { return codes.NoTokenizer }

func (e *NoTokenizerError) Error() string {
	return fmt.Sprintf("profile %s protects texts (protect.patterns), and no tokenizer is configured for model %.100q: "+
		"configure models[].tokenizerFile, or remove the patterns", e.Profile, e.Model)
}

// protect adds to the tokens that the page protects those that overlap one of the policy's patterns, and those of messages:
// ranges [from, to) of positions.
func (j *job) protect(models Model, messages [][2]int, d *policy.Decision) error {
	patterns, p := d.Plan.Protect.Patterns, j.page
	if len(patterns) == 0 && len(messages) == 0 {
		return nil
	}
	j.mask = grow(j.mask, p.Tokens)
	clear(j.mask)
	copy(j.mask, p.Protect)
	j.in.Protect = j.mask
	for i, at := range j.positions {
		for _, m := range messages {
			if int(at) >= m[0] && int(at) < m[1] {
				j.mask[i] = 1
			}
		}
	}
	if len(patterns) == 0 {
		return nil
	}
	refused := &NoTokenizerError{Model: p.Model, Profile: d.Profile}
	if models == nil {
		return refused
	}
	text, ok, err := models.Text(p.Model)
	if err != nil {
		return err
	}
	if !ok {
		return refused
	}
	j.starts = grow(j.starts, p.Tokens)
	for _, pattern := range patterns {
		markPattern(j.mask, j.starts, pattern, func(i int) (string, bool) { return text(p.TokenIDs.At(i)) })
	}
	return nil
}

// markPattern sets mask, [tokens], to 1 for every token that overlaps an occurrence of pattern, overlapping ones included,
// in the tokens' texts put together. A token without a text ends the text before it. starts is scratch, [tokens].
//
// It is the search of Knuth, Morris and Pratt over the tokens as they come: its time grows with the text, whatever the
// pattern, nothing is put together, and no token is marked twice.
func markPattern(mask []byte, starts []int, pattern string, text func(i int) (string, bool)) {
	border := borders(pattern)
	state, at := 0, 0     // bytes of the pattern that match; bytes of text so far
	first, marked := 0, 0 // the token that a match begins in; tokens before this one are done with
	for i := range mask {
		starts[i] = at
		s, ok := text(i)
		if !ok {
			state = 0
			continue
		}
		for k := 0; k < len(s); k++ {
			if state == 0 { // nothing matches: the next byte that can
				next := strings.IndexByte(s[k:], pattern[0])
				if next < 0 {
					break
				}
				k += next
			}
			for state > 0 && pattern[state] != s[k] {
				state = border[state-1]
			}
			if pattern[state] == s[k] {
				state++
			}
			if state < len(pattern) {
				continue
			}
			state = border[state-1]
			begin := at + k + 1 - len(pattern)
			for first < i && starts[first+1] <= begin {
				first++
			}
			for marked = max(marked, first); marked <= i; marked++ {
				mask[marked] = 1
			}
		}
		at += len(s)
	}
}

// borders holds, for every prefix of s, the length of its longest border: a proper prefix that is also its end.
func borders(s string) []int {
	b := make([]int, len(s))
	for i := 1; i < len(s); i++ {
		k := b[i-1]
		for k > 0 && s[k] != s[i] {
			k = b[k-1]
		}
		if s[k] == s[i] {
			k++
		}
		b[i] = k
	}
	return b
}
