package bpe

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Encoder is read only after [New]: any number of goroutines may share it.
type Encoder struct {
	vocab        map[string]int32
	ranks        map[[2]string]int
	ignoreMerges bool
	byteFallback bool
	unknown      int32 // -1: characters that the vocabulary lacks are dropped
	steps        []step
	splits       []split
	byteLevel    bool
	first        []int32
	verbatim     *added // tokens that are found in the text as it is
	normal       *added // and those that are found after the steps; nil: none
}

// step is a change to the whole text before it is split.
type step func(string) string

// split cuts a piece of text into smaller ones; start says that the text begins with it.
type split func(piece string, start bool) []string

type model struct {
	Type         string            `json:"type"`
	Vocab        vocabulary        `json:"vocab"`
	Merges       []json.RawMessage `json:"merges"`
	Unknown      *string           `json:"unk_token"`
	Prefix       *string           `json:"continuing_subword_prefix"`
	Suffix       *string           `json:"end_of_word_suffix"`
	ByteFallback bool              `json:"byte_fallback"`
	IgnoreMerges bool              `json:"ignore_merges"`
}

// vocabulary is empty where a file of another kind has something else in its place.
type vocabulary map[string]int32

// UnmarshalJSON implements json.Unmarshaler.
func (v *vocabulary) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		return json.Unmarshal(data, (*map[string]int32)(v))
	}
	return nil
}

// New reads a tokenizer.json.
func New(data []byte) (*Encoder, error) {
	var f struct {
		Model         model           `json:"model"`
		Added         []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, bad("%v", err)
	}
	m := &f.Model
	if m.Type != "BPE" {
		return nil, bad("model type %q is not supported, only BPE: give token ids instead of text", m.Type)
	}
	if (m.Prefix != nil && *m.Prefix != "") || (m.Suffix != nil && *m.Suffix != "") {
		return nil, bad("continuing_subword_prefix and end_of_word_suffix are not supported: give token ids instead of text")
	}
	e := &Encoder{vocab: m.Vocab, ranks: make(map[[2]string]int, len(m.Merges)), unknown: -1,
		ignoreMerges: m.IgnoreMerges, byteFallback: m.ByteFallback}
	if m.Unknown != nil {
		id, ok := m.Vocab[*m.Unknown]
		if !ok {
			return nil, bad("unk_token %q is not in the vocabulary", *m.Unknown)
		}
		e.unknown = id
	}
	for i, raw := range m.Merges {
		pair, err := mergePair(raw)
		if err != nil {
			return nil, bad("merge %d: %v", i, err)
		}
		if _, ok := m.Vocab[pair[0]+pair[1]]; !ok {
			return nil, bad("merge %d makes %q, which is not in the vocabulary", i, pair[0]+pair[1])
		}
		if _, twice := e.ranks[pair]; !twice {
			e.ranks[pair] = i
		}
	}
	if err := e.normalizer(f.Normalizer); err != nil {
		return nil, err
	}
	e.verbatim, e.normal = newAdded(f.Added, false, nil), newAdded(f.Added, true, e.steps)
	if err := e.preTokenizer(f.PreTokenizer); err != nil {
		return nil, err
	}
	return e, e.postProcessor(f.PostProcessor)
}

// mergePair reads "a b" (old files) or ["a", "b"].
func mergePair(raw json.RawMessage) (pair [2]string, err error) {
	if len(raw) > 0 && raw[0] == '[' {
		var parts []string
		if err := json.Unmarshal(raw, &parts); err != nil || len(parts) != 2 {
			return pair, fmt.Errorf("%s is not a pair", raw)
		}
		return [2]string{parts[0], parts[1]}, nil
	}
	var line string
	if err := json.Unmarshal(raw, &line); err != nil {
		return pair, err
	}
	a, b, ok := strings.Cut(line, " ")
	if !ok {
		return pair, fmt.Errorf("%q is not a pair", line)
	}
	return [2]string{a, b}, nil
}

// First lists the special tokens that the tokenizer puts before a text, such as the beginning-of-text token.
func (e *Encoder) First() []int32 { return e.first }

// Encode returns the ids of text. Added tokens in it, such as the marks of a chat template, become the ids that the model knows them
// by; those that the tokenizer itself would put around a text are not: see [Encoder.First].
func (e *Encoder) Encode(text string) []int32 {
	var ids []int32
	for p := range e.verbatim.cut(text) {
		if p.id >= 0 {
			ids = append(ids, p.id)
			continue
		}
		for _, f := range e.steps {
			p.text = f(p.text)
		}
		for q := range e.normal.cut(p.text) {
			if q.id >= 0 {
				ids = append(ids, q.id)
				continue
			}
			ids = e.plain(ids, q.text, p.start && q.start)
		}
	}
	return ids
}

// plain appends the ids of a stretch without added tokens.
func (e *Encoder) plain(ids []int32, text string, start bool) []int32 {
	if text == "" {
		return ids
	}
	pieces := []string{text}
	for _, f := range e.splits {
		var next []string
		for i, p := range pieces {
			next = append(next, f(p, start && i == 0)...)
		}
		pieces = next
	}
	for _, p := range pieces {
		if e.byteLevel {
			p = spellBytes(p)
		}
		ids = e.word(ids, p)
	}
	return ids
}

// word appends the ids of one piece.
func (e *Encoder) word(ids []int32, piece string) []int32 {
	if piece == "" {
		return ids
	}
	if id, ok := e.vocab[piece]; ok && e.ignoreMerges {
		return append(ids, id)
	}
	for _, s := range e.merge(e.symbols(piece)) {
		if id, ok := e.vocab[s]; ok {
			ids = append(ids, id)
		} else if e.unknown >= 0 {
			ids = append(ids, e.unknown)
		}
	}
	return ids
}

// symbols cuts a piece into what merging starts from: characters, or the bytes of a character that the vocabulary lacks.
func (e *Encoder) symbols(piece string) []string {
	out := make([]string, 0, len(piece))
	for piece != "" {
		_, n := utf8.DecodeRuneInString(piece)
		c := piece[:n]
		piece = piece[n:]
		if _, ok := e.vocab[c]; ok || !e.byteFallback {
			out = append(out, c)
			continue
		}
		for i := range len(c) {
			out = append(out, fmt.Sprintf("<0x%02X>", c[i]))
		}
	}
	return out
}
