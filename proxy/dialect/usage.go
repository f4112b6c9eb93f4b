package dialect

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// Usage is what a reply says of itself. A count of -1 was not said.
type Usage struct {
	Prompt, Output int
	KV             json.RawMessage // kv_transfer_params that the engine returned; nil: none
}

// NoUsage is the usage of a reply that says nothing.
func NoUsage() Usage { return Usage{Prompt: -1, Output: -1} }

// maxKV bounds the returned parameters that are kept.
const maxKV = 4 << 10

// counts are the names under which the dialects report the same two numbers.
type counts struct {
	PromptTokens     *int `json:"prompt_tokens"`
	InputTokens      *int `json:"input_tokens"`
	InputLength      *int `json:"input_length"`
	CompletionTokens *int `json:"completion_tokens"`
	OutputTokens     *int `json:"output_tokens"`
	GeneratedTokens  *int `json:"generated_tokens"`
}

// ReadUsage merges what a reply, or one event of it, says into u: usage at the top (OpenAI), inside response (responses)
// or message (messages), or as TGI's details. What is not JSON says nothing.
func ReadUsage(text []byte, u *Usage) {
	if !bytes.Contains(text, []byte(`"usage"`)) && !bytes.Contains(text, []byte(`"details"`)) && !bytes.Contains(text, []byte(`"`+memberKVParams+`"`)) {
		return
	}
	var reply struct {
		Usage    *counts                  `json:"usage"`
		Details  *counts                  `json:"details"`
		Response *struct{ Usage *counts } `json:"response"`
		Message  *struct{ Usage *counts } `json:"message"`
		KV       json.RawMessage          `json:"kv_transfer_params"`
	}
	if json.Unmarshal(text, &reply) != nil {
		return
	}
	u.merge(reply.Usage)
	u.merge(reply.Details)
	if reply.Response != nil {
		u.merge(reply.Response.Usage)
	}
	if reply.Message != nil {
		u.merge(reply.Message.Usage)
	}
	if len(reply.KV) > 0 && len(reply.KV) <= maxKV && string(reply.KV) != "null" {
		u.KV = bytes.Clone(reply.KV)
	}
}

func (u *Usage) merge(c *counts) {
	if c == nil {
		return
	}
	for _, n := range []*int{c.PromptTokens, c.InputTokens, c.InputLength} {
		if n != nil && *n >= 0 {
			u.Prompt = *n
		}
	}
	for _, n := range []*int{c.CompletionTokens, c.OutputTokens, c.GeneratedTokens} {
		if n != nil && *n >= 0 {
			u.Output = *n
		}
	}
}

// ReadUsageHeaders merges what TGI says in the headers of a reply.
func ReadUsageHeaders(h http.Header, u *Usage) {
	for name, count := range map[string]*int{"X-Prompt-Tokens": &u.Prompt, "X-Generated-Tokens": &u.Output} {
		if n, err := strconv.Atoi(h.Get(name)); err == nil && n >= 0 {
			*count = n
		}
	}
}

// HideUsage is the event of a stream as a client sees it that did not ask for the usage: nothing for the event that only
// reports it, and without the member in every other. data is the event's JSON.
func HideUsage(data []byte) (shown []byte, changed bool) {
	if !bytes.Contains(data, []byte(`"usage"`)) {
		return data, false
	}
	object, err := ParseObject(data)
	if err != nil || object.Count("usage") == 0 {
		return data, false
	}
	usage, _ := object.Get("usage")
	if choices, ok := object.Get("choices"); ok && emptyList(choices) && string(usage) != "null" {
		return nil, true
	}
	object.Delete("usage")
	return object.Bytes(), true
}

func emptyList(value []byte) bool {
	return len(value) >= 2 && value[0] == '[' && len(bytes.TrimSpace(value[1:len(value)-1])) == 0
}
