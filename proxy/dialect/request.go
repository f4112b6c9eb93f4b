package dialect

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/semproxy/semproxy/codes"
)

// Members of a request that are looked at.
const (
	memberModel         = "model"
	memberStream        = "stream"
	memberStreamOptions = "stream_options"
	memberIncludeUsage  = "include_usage"
	memberParameters    = "parameters"
	memberPrompt        = "prompt"
	memberRequestID     = "request_id"
	memberPrevious      = "previous_response_id"
	memberConversation  = "conversation"
	memberBackground    = "background"
	memberPriority      = "priority"
	memberMessages      = "messages"
)

// maxModel bounds the name of a model, which becomes a label of spans and part of records.
const maxModel = 256

// maxMember bounds the members that are decided by, but for the prompt: a longer one is refused.
const maxMember = 4 << 10

// maxRelay bounds the kv_transfer_params of a router, which may list blocks.
const maxRelay = 256 << 10

var errNotBool, errNotNumber = errors.New("not true or false"), errors.New("not a number")

// limitNames are those under which the dialects say how many tokens to produce, at most.
var limitNames = [...]string{"max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"}

// deciding are members that something is decided by: one that is there twice is read differently by different parsers, and what
// is decided here must be what runs there. The value says where in the prompt it belongs; ignored: it is none.
var deciding = map[string]place{
	memberModel: ignored, memberStream: ignored, memberStreamOptions: ignored, "vllm_xargs": inside,
	"max_tokens": ignored, "max_completion_tokens": ignored, "max_output_tokens": ignored, "max_new_tokens": ignored,
	memberRequestID: ignored, memberPrevious: ignored, memberConversation: ignored, memberBackground: ignored, memberPriority: ignored,
	"n": ignored, "best_of": ignored, "temperature": ignored, "seed": ignored, "logprobs": ignored, "top_logprobs": ignored,
	memberParameters: inside, memberMessages: chats, memberPrompt: prompts, "input": prompts, "inputs": prompts,
	"system": words, "instructions": words, "tools": literal, "functions": literal, "documents": words, "query": prompts, "queries": prompts,
	"items": prompts, "texts": prompts, "text_1": prompts, "text_2": prompts, "data_1": prompts, "data_2": prompts, "suffix": words, "tokens": prompts,
	"images": media, "videos": media + Video, "audios": media + Audio, "prompt_embeds": media + File,
}

// scalars are those of them whose value is read.
var scalars = map[string]bool{
	memberModel: true, memberStream: true, memberStreamOptions: true, "max_tokens": true, "max_completion_tokens": true,
	"max_output_tokens": true, "max_new_tokens": true, "n": true, "best_of": true, "temperature": true, "seed": true,
	"logprobs": true, "top_logprobs": true, memberPrevious: true, memberConversation: true, memberBackground: true, memberPriority: true,
}

// keeping are those that mean something only where the engine keeps answers.
var keeping = map[string]bool{memberRequestID: true, memberPrevious: true, memberConversation: true, memberBackground: true}

// Request is what a JSON body asks for.
type Request struct {
	Model      string
	Stream     bool // the reply is a stream of events
	UsageAsked bool // the client wants the stream's last event with the usage
	Prompt     Prompt
	MaxTokens  int // most tokens of one answer; 0: not said
	Answers    int // how many of those are produced: prompts times n; at least 1
	// Previous is the answer that this one follows, by its id; empty: none. Conversation: it belongs to one that the engine keeps.
	Previous     string
	Conversation bool
	Background   bool // the answer is made after the reply, and asked for later
	// Greedy: temperature 0. Seeded: a seed is there. What an engine is asked with them again should be answered alike.
	Greedy, Seeded bool
	// Relay are the members of kv_transfer_params that a router of prefill and decode engines sends (do_remote_decode and the
	// like); nil: none.
	Relay json.RawMessage

	route   Route
	body    Body
	salt    []byte
	options []byte // stream_options as it came; nil: none
	some    bool   // the body so far has members
}

// Reader reads a request's body as it comes in pieces, and keeps it as the engine is to get it, without what only the proxy may
// send. It needs little more memory than the body has bytes, whatever their shape.
type Reader struct {
	r        Request
	scan     *scan
	seen     map[string]bool // of the deciding members; those of TGI's parameters with a dot before them
	n, bestN float64
	link     linkMatcher
	bad      error // found where no error can be returned
	err      error
}

// NewReader begins a request of a route; size is the body's length, where it is known, else negative.
func NewReader(route Route, size int64) *Reader {
	q := &Reader{r: Request{route: route, Stream: route.AlwaysStream}, seen: make(map[string]bool, 8)}
	q.scan = newScan(q, true, maxRelay)
	q.scan.open = true
	if route.Dialect == TGI {
		q.scan.spy = q.link.write
	}
	q.r.body.expect(size)
	return q
}

// Write takes the next piece. The error is an *Error of status 400.
func (q *Reader) Write(p []byte) (int, error) {
	if q.err != nil {
		return 0, q.err
	}
	q.scan.out = q.r.body.room(len(p) + 2*maxKey)
	if q.err = q.scan.write(p); q.err == nil {
		q.err = q.bad
	}
	q.r.body.put(q.scan.out)
	if q.err != nil {
		q.err = refusal(q.err)
		return 0, q.err
	}
	return len(p), nil
}

// Held is how many bytes the reader holds.
func (q *Reader) Held() int64 { return q.r.body.held }

// Request ends the reading.
func (q *Reader) Request() (*Request, error) {
	switch {
	case q.err != nil:
		return nil, q.err
	case !q.scan.done:
		return nil, refusal(errNotObject)
	}
	q.r.some = q.scan.some
	q.r.Answers = min(max(1, q.r.Prompt.Several)*max(1, int(min(max(q.n, q.bestN), 1<<16))), 1<<20)
	q.r.Prompt.Bytes = max(0, q.r.Prompt.Bytes-q.link.bytes)
	q.r.Prompt.Media[Image] += q.link.count
	return &q.r, nil
}

func refusal(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	return &Error{http.StatusBadRequest, codes.RequestBadJSON, errNotObject.Error()}
}

// Inspect reads a whole body. The error is an *Error of status 400.
func Inspect(route Route, body []byte) (*Request, error) {
	q := NewReader(route, int64(len(body)))
	if _, err := q.Write(body); err != nil {
		return nil, err
	}
	return q.Request()
}

func badMember(name string) error {
	return &Error{http.StatusBadRequest, codes.RequestBadMember, "the member " + name + " has a value of the wrong kind, or one that is too long"}
}

// member is part of visitor.
func (q *Reader) member(in place, name string) (place, fate, error) {
	switch {
	case in == literal:
		q.r.Prompt.Bytes += len(name)
		return literal, passes, nil
	case Private(name) && in == root && name != memberECParams:
		if name == memberCacheSalt && q.r.salt != nil {
			return ignored, cut, nil
		}
		return ignored, kept, nil
	case Private(name):
		return ignored, cut, nil
	case in == settings:
		if scalars[name] {
			return ignored, watched, q.once(".", name)
		}
	case in == root:
		if at, ok := deciding[name]; ok {
			return q.top(at, name)
		}
	case in == words || in == chats || in == prompts || in == prompt:
		if at, ok := mediaNames[name]; ok {
			return at, passes, nil
		}
		q.r.Prompt.Bytes += len(name)
		if own[name] {
			return literal, passes, nil
		}
		return words, passes, nil
	case in == source:
		return source, passes, nil
	}
	if own[name] {
		return ignored, passes, nil
	}
	return inside, passes, nil
}

// top is a deciding member of the body itself.
func (q *Reader) top(at place, name string) (place, fate, error) {
	if err := q.once("", name); err != nil {
		return ignored, passes, err
	}
	switch {
	case name == memberStreamOptions:
		return ignored, kept, nil
	case keeping[name] && !q.r.route.Keeps:
		return ignored, passes, nil
	case name == memberRequestID: // the proxy names what the engine keeps
		return ignored, cut, nil
	case scalars[name]:
		return ignored, watched, nil
	case name == memberParameters && q.r.route.Dialect == TGI:
		return settings, passes, nil
	}
	return at, passes, nil
}

func (q *Reader) once(in, name string) error {
	if q.seen[in+name] {
		return &Error{http.StatusBadRequest, codes.RequestDuplicateMember, "the member " + name + " is there more than once"}
	}
	q.seen[in+name] = true
	return nil
}

// whole is part of visitor.
func (q *Reader) whole(_ place, name string, value []byte, short bool) error {
	switch {
	case name == memberKVParams:
		if short && relays(value) {
			q.r.Relay = append(json.RawMessage{}, value...)
		}
		return nil
	case !short || len(value) > maxMember:
		return badMember(name)
	case name == memberCacheSalt:
		q.r.salt = append([]byte{}, value...)
		return nil
	case string(value) == "null":
		return nil
	}
	return q.scalar(name, value)
}

// relays says whether parameters are those of a router between prefill and decode engines.
func relays(value []byte) bool {
	object, err := ParseObject(value)
	return err == nil && object.Count("do_remote_decode")+object.Count("do_remote_prefill") > 0
}

func (q *Reader) scalar(name string, value []byte) (err error) {
	r := &q.r
	var n float64
	switch name {
	case memberModel:
		if r.Model, err = decodeText(value); err == nil && len(r.Model) > maxModel {
			return &Error{http.StatusBadRequest, codes.RequestBadMember, "the member model is longer than 256 bytes"}
		}
	case memberStream:
		stream := false
		stream, err = decodeBool(value)
		r.Stream = stream || r.route.AlwaysStream
	case memberStreamOptions:
		err = q.streamOptions(value)
	case "logprobs", "top_logprobs": // a number, or true
	case memberPrevious:
		if r.Previous, err = decodeText(value); r.Previous == "" {
			return badMember(name)
		}
	case memberConversation:
		r.Conversation = true
	case memberBackground:
		r.Background, err = decodeBool(value)
	case memberPriority: // a lower one is served earlier; 0 is what all have
		if n, err = decodeNumber(value); err == nil && n < 0 {
			return &Error{http.StatusBadRequest, codes.RequestBadMember, "the member priority must not be negative: it would be served before others"}
		}
	case "seed":
		r.Seeded = true
	case "temperature":
		n, err = decodeNumber(value)
		r.Greedy = err == nil && n == 0
	case "n":
		q.n, err = decodeNumber(value)
	case "best_of":
		q.bestN, err = decodeNumber(value)
	default: // a limit: engines differ in which they take of several
		if n, err = decodeNumber(value); n > 0 {
			r.MaxTokens = max(r.MaxTokens, int(min(n, 1<<30)))
		}
	}
	if err != nil {
		var known *Error
		if errors.As(err, &known) {
			return known
		}
		return badMember(name)
	}
	return nil
}

func (q *Reader) streamOptions(value []byte) error {
	options, err := ParseObject(value)
	if err != nil {
		return &Error{http.StatusBadRequest, codes.RequestBadMember, "the member stream_options must be an object"}
	}
	if options.Count(memberIncludeUsage) > 1 {
		return &Error{http.StatusBadRequest, codes.RequestDuplicateMember, "the member include_usage is there more than once"}
	}
	q.r.options = append([]byte{}, value...)
	if asked, ok := options.Get(memberIncludeUsage); ok && string(asked) != "null" {
		if q.r.UsageAsked, err = decodeBool(asked); err != nil {
			return badMember(memberIncludeUsage)
		}
	}
	return nil
}

func decodeBool(value []byte) (bool, error) {
	switch string(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errNotBool
}

// decodeNumber refuses a number that no float64 holds, as encoding/json does.
func decodeNumber(value []byte) (float64, error) {
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') {
		return 0, errNotNumber
	}
	return strconv.ParseFloat(string(value), 64)
}

// Params are what the proxy adds to a request.
type Params struct {
	KV        any             // becomes kv_transfer_params; nil: none
	Relay     json.RawMessage // members that kv_transfer_params has besides; nil: none
	CacheSalt string          // empty: none
	ID        string          // under which the engine keeps the answer; empty: it says
	Usage     bool            // ask for the usage at the end of a stream, unless the client does
}

// Rewrite returns the body as the engine gets it: what only the proxy may send is gone, what it adds is at the end, and every
// other value has the bytes that it came with. The second result says whether the usage event was asked for here, so that it is
// to be kept from the client. It is called once: the request lets go of the body.
func (r *Request) Rewrite(p Params) (body *Body, usageAdded bool, err error) {
	tail := make([]byte, 0, 512)
	add := func(name string, value []byte) {
		if r.some {
			tail = append(tail, ',')
		}
		r.some = true
		tail = append(append(append(append(tail, '"'), name...), '"', ':'), value...)
	}
	if p.KV != nil {
		value, err := json.Marshal(p.KV)
		if err == nil && p.Relay != nil {
			value, err = merge(p.Relay, value)
		}
		if err != nil {
			return nil, false, err
		}
		add(memberKVParams, value)
	}
	if p.CacheSalt != "" {
		add(memberCacheSalt, quote(p.CacheSalt))
	}
	if p.ID != "" {
		add(memberRequestID, quote(p.ID))
	}
	options := r.options
	if p.Usage && r.Stream && !r.UsageAsked && r.route.UsageOption {
		object := &Object{}
		if options != nil {
			if object, err = ParseObject(options); err != nil {
				return nil, false, err
			}
		}
		object.Delete(memberIncludeUsage)
		object.Set(memberIncludeUsage, []byte("true"))
		options, usageAdded = object.Bytes(), true
	}
	if options != nil {
		add(memberStreamOptions, options)
	}
	whole := r.body
	r.body = Body{}
	whole.append(append(tail, '}'))
	return &whole, usageAdded, nil
}

// merge is an object with the members of both; those of the second win.
func merge(first, second []byte) ([]byte, error) {
	a, err := ParseObject(first)
	if err != nil {
		return nil, err
	}
	b, err := ParseObject(second)
	if err != nil {
		return nil, err
	}
	for _, m := range b.members {
		a.Delete(m.name)
		a.Set(m.name, m.value)
	}
	return a.Bytes(), nil
}

// ClientSalt is the cache salt that the client sent, as it is written; nil when there is none.
func (r *Request) ClientSalt() []byte { return r.salt }
