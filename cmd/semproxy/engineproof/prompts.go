package engineproof

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line of a file of prompts.
const maxLine = 64 << 20

// Prompt is one line of a file of prompts: a prompt for /v1/completions or messages for /v1/chat/completions.
type Prompt struct {
	ID        string            `json:"id"` // default: its line
	Prompt    string            `json:"prompt"`
	Messages  json.RawMessage   `json:"messages"`
	Answer    Texts             `json:"answer"` // a right answer contains one of them
	MaxTokens int               `json:"max_tokens"`
	Headers   map[string]string `json:"headers"` // of the request, for rules that look at them
}

// Texts is one text or several.
type Texts []string

// UnmarshalJSON reads a text, or a list of them.
func (t *Texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = Texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// ReadPrompts reads JSON lines; every fault names its line.
func ReadPrompts(in io.Reader) ([]Prompt, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var out []Prompt
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		p := Prompt{ID: fmt.Sprint(n)}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&p); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if d.More() {
			return nil, fmt.Errorf("line %d: more than one JSON object", n)
		}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, p)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("there is no prompt in it")
	}
	return out, nil
}

func (p *Prompt) check() error {
	var messages []json.RawMessage
	switch {
	case (p.Prompt == "") == (len(p.Messages) == 0):
		return errors.New("needs either prompt or messages")
	case len(p.Messages) > 0 && (json.Unmarshal(p.Messages, &messages) != nil || len(messages) == 0):
		return errors.New("messages must be a list that is not empty")
	case p.MaxTokens < 0:
		return fmt.Errorf("max_tokens must not be negative, got %d", p.MaxTokens)
	}
	for _, a := range p.Answer {
		if plain(a) == "" {
			return errors.New("answer must not be empty: everything contains it")
		}
	}
	return nil
}

// right reports whether an answer contains one of those that are given, whatever its case and spaces.
func (p *Prompt) right(text string) bool {
	text = plain(text)
	for _, a := range p.Answer {
		if strings.Contains(text, plain(a)) {
			return true
		}
	}
	return false
}

func plain(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }
