package bpe

import (
	"encoding/json"
	"strings"

	"golang.org/x/text/unicode/norm"
)

type normalizer struct {
	Type    string            `json:"type"`
	Parts   []json.RawMessage `json:"normalizers"`
	Prepend string            `json:"prepend"`
	Pattern pattern           `json:"pattern"`
	Content string            `json:"content"`
}

func (e *Encoder) normalizer(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var n normalizer
	if err := json.Unmarshal(raw, &n); err != nil {
		return bad("normalizer: %v", err)
	}
	switch n.Type {
	case "Sequence":
		for _, part := range n.Parts {
			if err := e.normalizer(part); err != nil {
				return err
			}
		}
	case "Prepend":
		e.steps = append(e.steps, func(s string) string {
			if s == "" {
				return s
			}
			return n.Prepend + s
		})
	case "Replace":
		if n.Pattern.String == nil {
			return bad("normalizer Replace is supported with a String pattern only: give token ids instead of text")
		}
		e.steps = append(e.steps, func(s string) string { return strings.ReplaceAll(s, *n.Pattern.String, n.Content) })
	case "NFC":
		e.steps = append(e.steps, norm.NFC.String)
	case "NFKC":
		e.steps = append(e.steps, norm.NFKC.String)
	case "Lowercase":
		e.steps = append(e.steps, strings.ToLower)
	default:
		return bad("normalizer %q is not supported: give token ids instead of text", n.Type)
	}
	return nil
}

// postProcessor finds the special tokens that open a text.
func (e *Encoder) postProcessor(raw json.RawMessage) error {
	if absent(raw) {
		return nil
	}
	var p struct {
		Type   string            `json:"type"`
		Parts  []json.RawMessage `json:"processors"`
		Single []map[string]struct {
			ID string `json:"id"`
		} `json:"single"`
		Special map[string]struct {
			IDs []int32 `json:"ids"`
		} `json:"special_tokens"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return bad("post_processor: %v", err)
	}
	for _, part := range p.Parts {
		if err := e.postProcessor(part); err != nil {
			return err
		}
	}
	for _, piece := range p.Single {
		s, ok := piece["SpecialToken"]
		if !ok {
			break
		}
		e.first = append(e.first, p.Special[s.ID].IDs...)
	}
	return nil
}
