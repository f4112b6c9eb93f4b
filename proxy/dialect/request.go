package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// Members of a request that are looked at, and those that only the proxy may send.
const (
	memberModel         = "model"
	memberStream        = "stream"
	memberStreamOptions = "stream_options"
	memberIncludeUsage  = "include_usage"
	memberKVParams      = "kv_transfer_params"
	memberCacheSalt     = "cache_salt"
	memberArgs          = "vllm_xargs" // into which vLLM puts kv_transfer_params itself
)

// maxModel bounds the name of a model, which becomes a label of spans and part of records.
const maxModel = 256

var errNotBool, errNotNumber = errors.New("not true or false"), errors.New("not a number")

// limitNames are those under which the dialects say how many tokens to produce, at most.
var limitNames = [...]string{"max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"}

// Request is what a JSON body asks for.
type Request struct {
	Model        string
	Stream       bool // the reply is a stream of events
	UsageAsked   bool // the client wants the stream's last event with the usage
	PromptBytes  int  // length of the prompt as JSON: messages, prompt, input or inputs, with system and tools
	PromptTokens int  // where the prompt is a list of token ids; else 0
	MaxTokens    int  // most tokens to produce; 0: not said

	route   Route
	object  *Object
	options *Object // stream_options; nil: none
}

// Inspect reads body for a route. It keeps body, which must not be written to until Rewrite has returned. The error is an
// *Error of status 400.
func Inspect(route Route, body []byte) (*Request, error) {
	object, err := ParseObject(body)
	if err != nil {
		return nil, &Error{http.StatusBadRequest, "request.bad_json", err.Error()}
	}
	r := &Request{route: route, object: object, Stream: route.Pattern == "/generate_stream"}
	// A member that is there twice is read differently by different parsers: what is decided here must be what runs there.
	for _, name := range []string{memberModel, memberStream, memberStreamOptions, memberArgs, "messages", "prompt", "input", "inputs", "parameters"} {
		if object.Count(name) > 1 {
			return nil, &Error{http.StatusBadRequest, "request.duplicate_member", "the member " + name + " is there more than once"}
		}
	}
	if err := r.scalars(); err != nil {
		return nil, err
	}
	r.prompt()
	return r, nil
}

// read decodes a member into its place, if it is there and not null.
func read[T any](from *Object, name string, into *T, decode func([]byte) (T, error)) error {
	value, ok := from.Get(name)
	if !ok || string(value) == "null" {
		return nil
	}
	decoded, err := decode(value)
	if err != nil {
		return &Error{http.StatusBadRequest, "request.bad_member", "the member " + name + " has a value of the wrong kind"}
	}
	*into = decoded
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
	if value[0] == '"' || value[0] == '{' || value[0] == '[' || value[0] == 't' || value[0] == 'f' {
		return 0, errNotNumber
	}
	return strconv.ParseFloat(string(value), 64)
}

func (r *Request) scalars() error {
	if err := read(r.object, memberModel, &r.Model, decodeText); err != nil {
		return err
	}
	if len(r.Model) > maxModel {
		return &Error{http.StatusBadRequest, "request.bad_member", "the member model is longer than 256 bytes"}
	}
	if err := read(r.object, memberStream, &r.Stream, decodeBool); err != nil {
		return err
	}
	if r.route.Pattern == "/generate_stream" {
		r.Stream = true
	}
	limits := r.object
	if value, ok := r.object.Get("parameters"); ok && r.route.Dialect == TGI && string(value) != "null" {
		parameters, err := ParseObject(value)
		if err != nil {
			return &Error{http.StatusBadRequest, "request.bad_member", "the member parameters must be an object"}
		}
		limits = parameters
	}
	for _, name := range limitNames {
		var n float64 // an engine accepts 16.0 too
		if err := read(limits, name, &n, decodeNumber); err != nil {
			return err
		}
		if n > 0 {
			r.MaxTokens = int(min(n, 1<<30))
		}
	}
	if value, ok := r.object.Get(memberStreamOptions); ok && string(value) != "null" {
		options, err := ParseObject(value)
		if err != nil {
			return &Error{http.StatusBadRequest, "request.bad_member", "the member stream_options must be an object"}
		}
		r.options = options
		return read(options, memberIncludeUsage, &r.UsageAsked, decodeBool)
	}
	return nil
}

// prompt measures the prompt.
func (r *Request) prompt() {
	for _, name := range []string{"messages", "prompt", "input", "inputs", "system", "instructions", "tools"} {
		value, ok := r.object.Get(name)
		if !ok {
			continue
		}
		r.PromptBytes += len(value)
		if name == "prompt" {
			r.PromptTokens = tokenIDs(value)
		}
	}
}

// tokenIDs counts the ids of a prompt that is a list of numbers; 0 for any other.
func tokenIDs(value []byte) int {
	if len(value) < 3 || value[0] != '[' || bytes.ContainsAny(value[1:], "\"[{") {
		return 0
	}
	return bytes.Count(value, []byte(",")) + 1
}

// Params are what the proxy adds to a request.
type Params struct {
	KV        any    // becomes kv_transfer_params; nil: none
	CacheSalt string // empty: none
	Usage     bool   // ask for the usage at the end of a stream, unless the client does
}

// Rewrite returns the body as the engine gets it: what only the proxy may send is removed, what it adds is added, and
// every other value has the bytes that it came with. The second result says whether the usage event was asked for here,
// so that it is to be kept from the client. It is called once: the request lets go of the body that it was read from.
func (r *Request) Rewrite(p Params) (body []byte, usageAdded bool, err error) {
	r.object.Delete(memberKVParams)
	r.object.Delete(memberCacheSalt)
	if value, ok := r.object.Get(memberArgs); ok {
		if args, err := ParseObject(value); err == nil && args.Count(memberKVParams) > 0 {
			args.Delete(memberKVParams)
			r.object.Set(memberArgs, args.Bytes())
		}
	}
	if p.KV != nil {
		value, err := json.Marshal(p.KV)
		if err != nil {
			return nil, false, err
		}
		r.object.Set(memberKVParams, value)
	}
	if p.CacheSalt != "" {
		r.object.Set(memberCacheSalt, quote(p.CacheSalt))
	}
	if p.Usage && r.Stream && !r.UsageAsked && r.hasUsageOption() {
		options := r.options
		if options == nil {
			options = &Object{}
		}
		options.Delete(memberIncludeUsage)
		options.Set(memberIncludeUsage, []byte("true"))
		r.object.Set(memberStreamOptions, options.Bytes())
		usageAdded = true
	}
	body = r.object.Bytes()
	r.object, r.options = nil, nil
	return body, usageAdded, nil
}

// hasUsageOption: the other routes report the usage of a stream without being asked.
func (r *Request) hasUsageOption() bool {
	return r.route.Pattern == "/v1/chat/completions" || r.route.Pattern == "/v1/completions"
}

// ClientSalt is the cache salt that the client sent, as it is written; nil when there is none. It is read before Rewrite.
func (r *Request) ClientSalt() []byte {
	value, _ := r.object.Get(memberCacheSalt)
	return value
}
