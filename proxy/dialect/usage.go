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
	Cached         int             // of Prompt: read from the engine's prefix cache
	Reasoning      int             // of Output: not shown
	Model          string          // that answered
	KV             json.RawMessage // kv_transfer_params that the engine returned; nil: none
}

// NoUsage is the usage of a reply that says nothing.
func NoUsage() Usage { return Usage{Prompt: -1, Output: -1, Cached: -1, Reasoning: -1} }

// Known says whether a reply counted anything.
func (u *Usage) Known() bool { return u.Prompt >= 0 || u.Output >= 0 }

const (
	memberUsage = "usage"
	memberID    = "id"
)

// maxKV bounds the returned parameters that are kept.
const maxKV = 4 << 10

// kind of a count.
type kind uint8

const (
	none kind = iota
	promptCount
	outputCount
	totalCount
	readCount    // Anthropic: tokens read from the cache, which are not among its input_tokens
	createdCount // and those written to it
	cachedCount
	reasoningCount
	kinds
)

// countNames are the names under which the dialects report the same numbers, in usage and in its details.
var countNames = map[string]kind{
	"prompt_tokens": promptCount, "input_tokens": promptCount, "input_length": promptCount,
	"completion_tokens": outputCount, "output_tokens": outputCount, "generated_tokens": outputCount,
	"total_tokens": totalCount, "cache_read_input_tokens": readCount, "cache_creation_input_tokens": createdCount,
	"cached_tokens": cachedCount, "reasoning_tokens": reasoningCount,
}

// tokenCounts are the counts of one reply. Events of a stream count up: the largest holds.
type tokenCounts [kinds]int

func noCounts() (t tokenCounts) {
	for i := range t {
		t[i] = -1
	}
	return t
}

func (t *tokenCounts) take(k kind, value []byte) {
	if len(value) == 0 || value[0] < '0' || value[0] > '9' {
		return
	}
	if n, err := strconv.ParseFloat(string(value), 64); err == nil && n < 1<<40 {
		t[k] = max(t[k], int(n))
	}
}

// sum is the usage that the counts mean in a dialect.
func (t *tokenCounts) sum(d Dialect) (u Usage) {
	u = NoUsage()
	u.Prompt, u.Output, u.Cached, u.Reasoning = t[promptCount], t[outputCount], t[cachedCount], t[reasoningCount]
	if u.Prompt < 0 && t[totalCount] >= 0 {
		u.Prompt = max(0, t[totalCount]-max(0, u.Output))
	}
	if d == Anthropic && u.Prompt >= 0 {
		u.Prompt += max(0, t[readCount]) + max(0, t[createdCount])
		u.Cached = max(u.Cached, t[readCount])
	}
	return u
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

// Answer reads an answer, or the events of one, as it passes: what it says of its usage is taken down, and what is not the
// client's is removed. It holds nothing of the answer. It is not safe for concurrent use.
type Answer struct {
	Dialect Dialect
	Hide    bool // the usage of the stream was asked for by the proxy: the client is not to see it
	Relay   bool // the client is a router, which is given what the engine says of its KV
	Named   bool // the answer's id is taken down

	scan    *scan
	counted tokenCounts // of the answer, or of the part of it that is being read
	before  []Usage     // of the parts of a list of answers that have been read
	model   string
	id      string
	kv      json.RawMessage
	parts   int
	event   event
}

// event is what is looked at in one event.
type event struct {
	choices choiceState
	object  bool // it is one
	failure bool
}

type choiceState uint8

const (
	noChoices choiceState = iota
	emptyChoices
	someChoices
)

// Usage is what was said until now.
func (a *Answer) Usage() Usage {
	u := a.usage()
	for _, b := range a.before {
		u.Prompt, u.Output = plus(u.Prompt, b.Prompt), plus(u.Output, b.Output)
		u.Cached, u.Reasoning = plus(u.Cached, b.Cached), plus(u.Reasoning, b.Reasoning)
	}
	u.Model, u.KV = a.model, a.kv
	return u
}

// ID is the answer's, where it was to be taken down and has been said.
func (a *Answer) ID() string { return a.id }

func (a *Answer) usage() Usage {
	if a.scan == nil {
		return NoUsage()
	}
	return a.counted.sum(a.Dialect)
}

func plus(a, b int) int {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	return a + b
}

func (a *Answer) begin() {
	if a.scan == nil {
		a.counted = noCounts()
		a.scan = newScan(a, false, maxKV)
	}
	s := a.scan
	*s = scan{visit: a, most: maxKV, next: root, out: s.out[:0], held: s.held[:0], key: s.key[:0], taken: s.taken[:0], stack: s.stack[:0]}
	a.event = event{}
}

// pass scans a piece. Where it is no JSON, it and what follows pass as they are.
func (a *Answer) pass(p []byte) {
	s := a.scan
	if s.state == broken {
		if s.mode != cutting {
			s.out = append(s.out, p...)
		}
		return
	}
	if err := s.write(p); err != nil {
		if s.mode != cutting { // what breaks off within what is removed ends there
			s.out = append(append(s.out, s.held...), s.piece[s.run:]...)
		}
		s.state, s.held = broken, nil
	}
}

// Whole is a whole answer as the client gets it.
func (a *Answer) Whole(text []byte) (shown []byte, changed bool) {
	a.begin()
	a.pass(text)
	if !a.scan.changed {
		return text, false
	}
	return a.scan.out, true
}

// Begin begins an event, or an answer, that is given to Pass in pieces.
func (a *Answer) Begin() { a.begin() }

// Pass is what the client gets of the next piece. It is valid until the next call.
func (a *Answer) Pass(p []byte) []byte {
	a.scan.out = a.scan.out[:0]
	a.pass(p)
	return a.scan.out
}

// quick says that nothing of an event is of interest.
func (a *Answer) quick(data []byte) bool {
	return !bytes.Contains(data, []byte(`\u00`)) && !bytes.Contains(data, []byte(`_params"`)) && !bytes.Contains(data, []byte(`"usage"`)) && !bytes.Contains(data, []byte(`_salt"`)) &&
		!bytes.Contains(data, []byte(`"details"`)) && (!a.Hide || bytes.Contains(data, []byte(`"choices":[{`))) && (a.model != "" || !bytes.Contains(data, []byte(`"model"`)))
}

// Event is what the client gets of an event's data; nil with changed: nothing.
func (a *Answer) Event(data []byte) (shown []byte, changed bool) {
	if a.scan != nil && a.quick(data) {
		return data, false
	}
	a.begin()
	a.pass(data)
	if a.Hide && a.scan.state != broken && a.event.object && a.event.choices != someChoices && !a.event.failure {
		return nil, true
	}
	if !a.scan.changed {
		return data, false
	}
	return a.scan.out, true
}

// member is part of visitor.
func (a *Answer) member(in place, name string) (place, fate, error) {
	switch {
	case Private(name):
		what := kept
		if a.Relay {
			what = watched
		}
		return ignored, what, nil
	case in == counts || in == countsMore || in == sequences:
		if countNames[name] != none {
			return ignored, watched, nil
		}
		if in == counts { // its details, and Cohere's kinds of units
			if name == "billed_units" || name == "tokens" {
				return counts, passes, nil
			}
			return countsMore, passes, nil
		}
		return ignored, passes, nil
	case in == details:
		switch {
		case name == "best_of_sequences":
			return sequences, passes, nil
		case countNames[name] != none:
			return ignored, watched, nil
		}
		return inside, passes, nil
	case in == meta:
		return counts, passes, nil
	case in == choice && name == memberUsage: // Moonshot's
		return counts, passes, nil
	case in == root || in == envelope:
		switch name {
		case memberUsage:
			if a.Hide && in == root {
				return counts, hidden, nil
			}
			return counts, passes, nil
		case memberModel, "object":
			return ignored, watched, nil
		case memberID:
			if a.Named {
				return ignored, watched, nil
			}
		case "details":
			if a.Dialect == TGI {
				return details, passes, nil
			}
		case "meta":
			return meta, passes, nil
		case "response", "message", "x_groq":
			if in == root {
				return envelope, passes, nil
			}
		case "choices":
			return choices, passes, nil
		case "error":
			a.event.failure = a.event.failure || in == root
		}
	}
	if own[name] {
		return ignored, passes, nil
	}
	return inside, passes, nil
}

// value is part of visitor.
func (a *Answer) value(at place, element bool, kind byte) place {
	switch {
	case at == root && element && kind == '{': // one answer of a list
		if a.parts++; a.parts > 1 {
			a.before = append(a.before, a.usage())
			a.counted = noCounts()
		}
	case at == root && kind == '{':
		a.event.object = true
	case at == choices && element:
		a.event.choices = someChoices
		return choice
	case at == choices && kind == '[':
		a.event.choices = max(a.event.choices, emptyChoices)
	}
	return at
}

// text is part of visitor.
func (a *Answer) text(place, bool, int, []byte) {}

// whole is part of visitor.
func (a *Answer) whole(in place, name string, value []byte, short bool) error {
	switch {
	case !short || len(value) == 0:
	case name == memberKVParams:
		if string(value) != "null" {
			a.kv = bytes.Clone(value)
		}
	case name == memberModel:
		if text, err := decodeText(value); err == nil && len(text) <= maxModel && a.model == "" {
			a.model = text
		}
	case name == memberID:
		if text, err := decodeText(value); err == nil && len(text) <= maxModel && a.id == "" {
			a.id = text
		}
	case name == "object":
		a.event.failure = a.event.failure || string(value) == `"error"`
	case in == sequences: // besides the best
		n := noCounts()
		n.take(countNames[name], value)
		a.before = append(a.before, n.sum(a.Dialect))
	default:
		a.counted.take(countNames[name], value)
	}
	return nil
}
