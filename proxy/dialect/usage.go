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

const memberUsage = "usage"

// maxKV bounds the returned parameters that are kept.
const maxKV = 4 << 10

// Names under which the dialects report the same two numbers.
var (
	promptCounts = [...]string{"prompt_tokens", "input_tokens", "input_length"}
	outputCounts = [...]string{"completion_tokens", "output_tokens", "generated_tokens"}
)

// ReadUsage merges what a reply, or one event of it, says into u: usage at the top (OpenAI), inside response (responses)
// or message (messages), or as TGI's details. What is not JSON says nothing.
func ReadUsage(text []byte, u *Usage) {
	if !bytes.Contains(text, []byte(`"usage"`)) && !bytes.Contains(text, []byte(`"details"`)) && !bytes.Contains(text, []byte(`"`+memberKVParams+`"`)) {
		return
	}
	reply, err := ParseObject(text)
	if err != nil {
		return
	}
	for i := range reply.members {
		switch m := &reply.members[i]; m.name {
		case memberUsage, "details":
			u.merge(m.value)
		case "response", "message":
			if inner, err := ParseObject(m.value); err == nil {
				usage, _ := inner.Get(memberUsage)
				u.merge(usage)
			}
		case memberKVParams:
			if len(m.value) <= maxKV && string(m.value) != "null" {
				u.KV = bytes.Clone(m.value)
			}
		}
	}
}

// merge takes the counts over that an object of them says.
func (u *Usage) merge(value []byte) {
	if len(value) == 0 || value[0] != '{' {
		return
	}
	object, err := ParseObject(value)
	if err != nil {
		return
	}
	take := func(names [3]string, into *int) {
		for _, name := range names {
			value, ok := object.Get(name)
			if !ok || value[0] < '0' || value[0] > '9' {
				continue
			}
			if n, err := strconv.Atoi(string(value)); err == nil {
				*into = n
			}
		}
	}
	take(promptCounts, &u.Prompt)
	take(outputCounts, &u.Output)
}

// ReadUsageHeaders merges what TGI says in the headers of a reply.
func ReadUsageHeaders(h http.Header, u *Usage) {
	take := func(name string, count *int) {
		if text := h.Get(name); text != "" {
			if n, err := strconv.Atoi(text); err == nil && n >= 0 {
				*count = n
			}
		}
	}
	take("X-Prompt-Tokens", &u.Prompt)
	take("X-Generated-Tokens", &u.Output)
}

// HideUsage is the event of a stream as a client sees it that did not ask for the usage: nothing for the event that only
// reports it, and without the member in every other. data is the event's JSON.
func HideUsage(data []byte) (shown []byte, changed bool) {
	if !bytes.Contains(data, []byte(`"usage"`)) {
		return data, false
	}
	object, err := ParseObject(data)
	if err != nil || object.Count(memberUsage) == 0 {
		return data, false
	}
	usage, _ := object.Get(memberUsage)
	if choices, ok := object.Get("choices"); ok && emptyList(choices) && string(usage) != "null" {
		return nil, true
	}
	object.Delete(memberUsage)
	return object.Bytes(), true
}

// HideKV is a reply, or an event of one, without the kv_transfer_params that the engine returned: a client cannot use them, and
// they name what lies behind the proxy. What is not JSON stays.
func HideKV(text []byte) (shown []byte, changed bool) {
	if !bytes.Contains(text, []byte(`"`+memberKVParams+`"`)) {
		return text, false
	}
	object, err := ParseObject(text)
	if err != nil || object.Count(memberKVParams) == 0 {
		return text, false
	}
	object.Delete(memberKVParams)
	return object.Bytes(), true
}

func emptyList(value []byte) bool {
	return len(value) >= 2 && value[0] == '[' && len(bytes.TrimSpace(value[1:len(value)-1])) == 0
}
