package delimiter

import (
	"bytes"
	"encoding/json"
	"strings"
)

// step turns a token into text, or into what the next step reads. No step makes a token longer, so that a table is never
// larger than its file.
type step func(token string) string

const (
	maxDecoderBytes = 64 << 10
	maxDecoderSteps = 32
)

// component is one node of tokenizer.json's decoder or pre_tokenizer tree; the fields are those of the types understood.
type component struct {
	Type          string            `json:"type"`
	Decoders      []json.RawMessage `json:"decoders"`
	Pretokenizers []json.RawMessage `json:"pretokenizers"`
	Pattern       struct {
		String *string `json:"String"`
	} `json:"pattern"`
	Content     string `json:"content"`
	Replacement string `json:"replacement"`
	Suffix      string `json:"suffix"`
}

// decoderSteps reads how tokens become text: from the decoder, or where the file has none, from the pre-tokenizer, whose
// inverse it is.
func decoderSteps(decoder, preTokenizer json.RawMessage, fallback bool) ([]step, error) {
	var (
		steps []step
		err   error
	)
	if isNull(decoder) {
		steps, err = fromPreTokenizer(nil, preTokenizer, 0)
	} else {
		steps, err = fromDecoder(nil, decoder, 0)
	}
	if err != nil {
		return nil, err
	}
	if fallback {
		steps = append(steps, byteFallback) // idempotent: harmless where the decoder names it too
	}
	return steps, nil
}

func fromDecoder(steps []step, raw json.RawMessage, depth int) ([]step, error) {
	c, err := parseComponent("decoder", raw, depth, len(steps))
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "Sequence":
		for _, child := range c.Decoders {
			if steps, err = fromDecoder(steps, child, depth+1); err != nil {
				return nil, err
			}
		}
		return steps, nil
	case "ByteLevel":
		return append(steps, byteLevel), nil
	case "ByteFallback":
		return append(steps, byteFallback), nil
	case "Metaspace":
		return appendReplace(steps, metaspace(c), " ")
	case "Replace":
		if c.Pattern.String == nil {
			return nil, fail(CodeUnsupported, "decoder Replace: only a String pattern is supported")
		}
		return appendReplace(steps, *c.Pattern.String, c.Content)
	case "BPEDecoder":
		if c.Suffix == "" {
			return steps, nil
		}
		return appendReplace(steps, c.Suffix, " ")
	case "Fuse", "Strip":
		return steps, nil // both work on the whole text, not on a token
	default:
		return nil, fail(CodeUnsupported, "decoder %.40q is not supported", c.Type)
	}
}

func fromPreTokenizer(steps []step, raw json.RawMessage, depth int) ([]step, error) {
	if isNull(raw) {
		return steps, nil
	}
	c, err := parseComponent("pre_tokenizer", raw, depth, len(steps))
	if err != nil {
		return nil, err
	}
	switch c.Type {
	case "Sequence":
		for _, child := range c.Pretokenizers {
			if steps, err = fromPreTokenizer(steps, child, depth+1); err != nil {
				return nil, err
			}
		}
	case "ByteLevel":
		steps = append(steps, byteLevel)
	case "Metaspace":
		return appendReplace(steps, metaspace(c), " ")
	}
	return steps, nil // the others split text and do not rewrite it
}

func parseComponent(what string, raw json.RawMessage, depth, steps int) (component, error) {
	var c component
	if len(raw) > maxDecoderBytes || depth > maxDecoderSteps || steps >= maxDecoderSteps {
		return c, fail(CodeTooLarge, "%s is larger than any known one", what)
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		// A pre-tokenizer's pattern may have another shape than a decoder's; only its type matters then.
		var typed struct {
			Type string `json:"type"`
		}
		if what == "decoder" || json.Unmarshal(raw, &typed) != nil {
			return c, wrap(CodeBad, err, what)
		}
		return component{Type: typed.Type}, nil
	}
	return c, nil
}

func appendReplace(steps []step, from, to string) ([]step, error) {
	if from == "" || len(to) > len(from) {
		return nil, fail(CodeUnsupported, "decoder replaces %.40q by %.40q, which makes tokens longer", from, to)
	}
	return append(steps, func(token string) string { return strings.ReplaceAll(token, from, to) }), nil
}

func metaspace(c component) string {
	if c.Replacement == "" {
		return "▁"
	}
	return c.Replacement
}

func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}
