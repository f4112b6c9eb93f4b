package bpe

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode/utf8"
)

// gpt2 is the pattern that the ByteLevel pre-tokenizer splits by when use_regex is set.
const gpt2 = `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

type preTokenizer struct {
	Type          string            `json:"type"`
	Parts         []json.RawMessage `json:"pretokenizers"`
	Pattern       pattern           `json:"pattern"`
	Behavior      string            `json:"behavior"`
	Invert        bool              `json:"invert"`
	PrefixSpace   *bool             `json:"add_prefix_space"`
	UseRegex      *bool             `json:"use_regex"`
	Replacement   string            `json:"replacement"`
	PrependScheme string            `json:"prepend_scheme"`
	Split         *bool             `json:"split"`
	Individual    bool              `json:"individual_digits"`
}

type pattern struct {
	Regex  *string `json:"Regex"`
	String *string `json:"String"`
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func (e *Encoder) preTokenizer(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var p preTokenizer
	if err := json.Unmarshal(raw, &p); err != nil {
		return bad("pre_tokenizer: %v", err)
	}
	switch p.Type {
	case "Sequence":
		for _, part := range p.Parts {
			if err := e.preTokenizer(part); err != nil {
				return err
			}
		}
	case "Split":
		how, ok := behaviors[p.Behavior]
		if p.Invert || !ok || (p.Pattern.Regex == nil) == (p.Pattern.String == nil) {
			return bad("pre_tokenizer Split with behavior %q, invert %v is not supported: give token ids instead of text", p.Behavior, p.Invert)
		}
		expr := ""
		if p.Pattern.Regex != nil {
			expr = *p.Pattern.Regex
		} else {
			expr = regexp.QuoteMeta(*p.Pattern.String)
		}
		return e.splitBy(expr, how)
	case "Digits":
		if p.Individual {
			return e.splitBy(`\p{Nd}`, isolated)
		}
		return e.splitBy(`\p{Nd}+`, isolated)
	case "ByteLevel":
		e.byteLevel = true
		if p.PrefixSpace == nil || *p.PrefixSpace {
			e.splits = append(e.splits, func(s string, _ bool) []string {
				if strings.HasPrefix(s, " ") {
					return []string{s}
				}
				return []string{" " + s}
			})
		}
		if p.UseRegex == nil || *p.UseRegex {
			return e.splitBy(gpt2, isolated)
		}
	case "Metaspace":
		return e.metaspace(p)
	default:
		return bad("pre_tokenizer %q is not supported: give token ids instead of text", p.Type)
	}
	return nil
}

// metaspace marks spaces as SentencePiece does.
func (e *Encoder) metaspace(p preTokenizer) error {
	mark := p.Replacement
	if mark == "" {
		return bad("pre_tokenizer Metaspace has no replacement")
	}
	prepend := p.PrependScheme != "never" && (p.PrependScheme != "" || p.PrefixSpace == nil || *p.PrefixSpace)
	onlyFirst := p.PrependScheme == "first"
	e.splits = append(e.splits, func(s string, start bool) []string {
		s = strings.ReplaceAll(s, " ", mark)
		if prepend && (start || !onlyFirst) && !strings.HasPrefix(s, mark) {
			s = mark + s
		}
		if p.Split != nil && !*p.Split {
			return []string{s}
		}
		var out []string
		for s != "" {
			n := strings.Index(s[min(len(mark), len(s)):], mark)
			if n < 0 {
				return append(out, s)
			}
			n += len(mark)
			out, s = append(out, s[:n]), s[n:]
		}
		return out
	})
	return nil
}

// trailing is the end of the published patterns: spaces up to the last one before a word, which goes to the word.
const trailing = `\s+(?!\S)|\s+`

// behavior says what becomes of the matches of a pattern.
type behavior int

const (
	isolated behavior = iota
	removed
	toPrevious
	toNext
)

var behaviors = map[string]behavior{"Isolated": isolated, "Removed": removed, "MergedWithPrevious": toPrevious, "MergedWithNext": toNext}

// arrange puts what was cut, of which matched says what the pattern took, as the behavior wants it.
func (b behavior) arrange(parts []string, matched []bool) []string {
	out := make([]string, 0, len(parts))
	glue := false // the part before belongs to the next one
	for i, p := range parts {
		switch {
		case b == removed && matched[i]:
		case len(out) > 0 && (glue || b == toPrevious && matched[i] && !matched[i-1]):
			out[len(out)-1] += p
		default:
			out = append(out, p)
		}
		glue = b == toNext && matched[i]
		if glue && i+1 < len(parts) && matched[i+1] {
			glue = false
		}
	}
	return out
}

// splitBy cuts at the matches of a pattern.
func (e *Encoder) splitBy(expr string, how behavior) error {
	lookahead := strings.HasSuffix(expr, trailing)
	if lookahead {
		expr = strings.TrimSuffix(expr, trailing) + `(\s+)`
	}
	re, err := regexp.Compile(goSyntax(expr))
	if err != nil {
		return bad("split pattern %q is not one that Go's regexp can express (%v): give token ids instead of text", expr, err)
	}
	if lookahead && re.NumSubexp() != 1 {
		return bad("split pattern %q captures groups: give token ids instead of text", expr)
	}
	e.splits = append(e.splits, func(s string, _ bool) []string { return how.arrange(cut(re, lookahead, s)) })
	return nil
}

// cut is the text in pieces, and which of them the pattern matches.
func cut(re *regexp.Regexp, lookahead bool, s string) (out []string, matched []bool) {
	for s != "" {
		m := re.FindStringSubmatchIndex(s)
		if m == nil || m[1] == m[0] {
			return append(out, s), append(matched, false)
		}
		end := m[1]
		if lookahead && m[2] >= 0 && end < len(s) {
			// \s+ took the whole run and a word follows: the last space is the word's, unless it is the only one.
			if _, n := utf8.DecodeLastRuneInString(s[m[0]:end]); end-n > m[0] {
				end -= n
			}
		}
		if m[0] > 0 {
			out, matched = append(out, s[:m[0]]), append(matched, false)
		}
		out, matched, s = append(out, s[m[0]:end]), append(matched, true), s[end:]
	}
	return out, matched
}

// goSyntax widens \s, \S and \d, which are ASCII in Go, to Unicode.
func goSyntax(expr string) string {
	const space, digit = `\t\n\v\f\r\x{85}\p{Z}`, `\p{Nd}`
	var out strings.Builder
	class := false
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		if c == '\\' && i+1 < len(expr) {
			i++
			switch {
			case expr[i] == 's' && class:
				out.WriteString(space)
			case expr[i] == 's':
				out.WriteString("[" + space + "]")
			case expr[i] == 'S' && !class:
				out.WriteString("[^" + space + "]")
			case expr[i] == 'd':
				out.WriteString(digit)
			default:
				out.WriteString(expr[i-1 : i+1])
			}
			continue
		}
		switch c {
		case '[':
			class = true
		case ']':
			class = false
		}
		out.WriteByte(c)
	}
	return out.String()
}

// byteRunes spells each byte as the printable character that byte-level vocabularies use: printable Latin-1 as itself, the
// others from U+0100 on.
var byteRunes = func() (t [256]string) {
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if printable := r >= '!' && r <= '~' || r >= 0xa1 && r <= 0xac || r >= 0xae; !printable {
			r = next
			next++
		}
		t[b] = string(r)
	}
	return t
}()

func spellBytes(s string) string {
	var out strings.Builder
	for i := range len(s) {
		out.WriteString(byteRunes[s[i]])
	}
	return out.String()
}
