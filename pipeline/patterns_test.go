package pipeline

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// unknown is a token that has no text.
const unknown = "\x00"

// marks runs the search over tokens.
func marks(tokens []string, pattern string) []byte {
	mask := make([]byte, len(tokens))
	markPattern(mask, make([]int, len(tokens)), pattern, func(i int) (string, bool) { return tokens[i], tokens[i] != unknown })
	return mask
}

func TestPatternMarksEveryTokenThatItOverlaps(t *testing.T) {
	for name, row := range map[string]struct {
		tokens  string // apart by |
		pattern string
		want    string // 1 for a token that is marked
	}{
		"inside a token":                   {"in| Bethel|.", "Beth", "010"},
		"a whole token":                    {"in| Bethel|.", " Bethel", "010"},
		"over three tokens":                {"to| Be|th|el| and", "Bethel", "01110"},
		"ends with one byte of a token":    {"ab|cd", "abc", "11"},
		"begins with one byte of a token":  {"ab|cd", "bcd", "11"},
		"twice":                            {"ab|x|ab", "ab", "101"},
		"overlapping itself":               {"a|b|a|b|a|c", "aba", "111110"},
		"after a false start":              {"a|a|a|b", "aab", "0111"},
		"not there":                        {"Be|th", "Bethel", "00"},
		"another case":                     {"bethel", "Bethel", "0"},
		"not across a token without text":  {"Be|\x00|thel", "Bethel", "000"},
		"right after a token without text": {"\x00|Bethel|x", "Bethel", "010"},
		"half of a character":              {"\xe6|\xbc|\xa2|.", "漢", "1110"},
		"not the empty token before it":    {"x||ab", "ab", "001"},
		"one byte":                         {"abc|b|c", "b", "110"},
		"one token, all of it":             {"aaaa", "a", "1"},
	} {
		got := marks(strings.Split(row.tokens, "|"), row.pattern)
		for i := range got {
			got[i] += '0'
		}
		if string(got) != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
	if got := marks(nil, "a"); len(got) != 0 {
		t.Errorf("no tokens: got %v", got)
	}
}

// The search finds what comparing at every place finds.
func TestPatternsAgreeWithTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func(most int) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = "ab"[r.IntN(2)]
		}
		return string(b)
	}
	for range 3000 {
		tokens := make([]string, r.IntN(30))
		for i := range tokens {
			if tokens[i] = word(3); r.IntN(12) == 0 {
				tokens[i] = unknown
			}
		}
		pattern := word(5) + "a"
		if got, want := marks(tokens, pattern), slow(tokens, pattern); !bytes.Equal(got, want) {
			t.Fatalf("%q in %q: got %v, want %v", pattern, tokens, got, want)
		}
	}
}

// slow compares the pattern at every byte. Empty tokens inside a match are in it.
func slow(tokens []string, pattern string) []byte {
	text, owner := strings.Join(tokens, ""), []int{}
	for i, token := range tokens {
		for range token {
			owner = append(owner, i)
		}
	}
	mask := make([]byte, len(tokens))
	for at := range text {
		if !strings.HasPrefix(text[at:], pattern) {
			continue
		}
		for i := owner[at]; i <= owner[at+len(pattern)-1]; i++ {
			mask[i] = 1
		}
	}
	return mask
}

func TestMarkingKeepsWhatIsMarkedAlready(t *testing.T) {
	mask := []byte{7, 0, 1}
	tokens := []string{"a", "b", "c"}
	markPattern(mask, make([]int, 3), "b", func(i int) (string, bool) { return tokens[i], true })
	if want := []byte{7, 1, 1}; !bytes.Equal(mask, want) {
		t.Errorf("got %v, want %v", mask, want)
	}
}
