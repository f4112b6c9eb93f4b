package dialect

import (
	"net/http"
	"path"
	"strings"
)

// Dialect is the shape of errors and replies that a client expects.
type Dialect int

// The dialects.
const (
	OpenAI Dialect = iota
	TGI
)

// Kind says how a route is handled.
type Kind int

// Kinds of routes.
const (
	Plain    Kind = iota // forwarded; a JSON body is inspected where it has one
	Generate             // produces tokens: decided, rewritten, measured
	Probe                // answered without a tenant: the health of the engine
)

// Route is one path of an engine.
type Route struct {
	Pattern   string // label of metrics and spans: a path of the table, or /v1/*
	Dialect   Dialect
	Kind      Kind
	Operation string // gen_ai.operation.name; empty where there is none
}

// routes are all that is forwarded, besides /v1/*.
var routes = map[string]struct {
	methods string // separated by spaces
	route   Route
}{
	"/v1/chat/completions": {"POST", Route{Dialect: OpenAI, Kind: Generate, Operation: "chat"}},
	"/v1/completions":      {"POST", Route{Dialect: OpenAI, Kind: Generate, Operation: "text_completion"}},
	"/v1/responses":        {"POST", Route{Dialect: OpenAI, Kind: Generate, Operation: "chat"}},
	"/v1/messages":         {"POST", Route{Dialect: OpenAI, Kind: Generate, Operation: "chat"}},
	"/v1/embeddings":       {"POST", Route{Dialect: OpenAI, Operation: "embeddings"}},
	"/v1/models":           {"GET", Route{Dialect: OpenAI}},
	"/tokenize":            {"POST", Route{Dialect: OpenAI}},
	"/detokenize":          {"POST", Route{Dialect: OpenAI}},
	"/health":              {"GET HEAD", Route{Dialect: OpenAI, Kind: Probe}},
	"/metrics":             {"GET", Route{Dialect: OpenAI}},
	"/version":             {"GET", Route{Dialect: OpenAI}},
	"/info":                {"GET", Route{Dialect: TGI}},
	"/generate":            {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion"}},
	"/":                    {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion"}}, // what huggingface_hub calls
	"/generate_stream":     {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion"}},
}

// forbidden are paths below /v1 that change the engine for every tenant.
var forbidden = map[string]bool{"/v1/load_lora_adapter": true, "/v1/unload_lora_adapter": true}

// wildcard is the rest of /v1.
const wildcard = "/v1/"

// Lookup finds the route of a request. found is false for a path that is not forwarded, which includes every path that is
// not in its plainest form (encoded, with empty, . or .. segments); allowed is false for a method that the path has not.
// The route's dialect is set in any case, for the error.
func Lookup(r *http.Request) (route Route, found, allowed bool) {
	p := r.URL.Path
	if r.URL.RawPath != "" || p == "" || p[0] != '/' || path.Clean(p) != p || strings.ContainsAny(p, "\\;\x00") {
		return Route{Dialect: OpenAI}, false, false
	}
	if known, ok := routes[p]; ok {
		known.route.Pattern = p
		for method := range strings.FieldsSeq(known.methods) {
			if method == r.Method {
				return known.route, true, true
			}
		}
		return known.route, true, false
	}
	if !strings.HasPrefix(p, wildcard) || forbidden[p] {
		return Route{Dialect: OpenAI}, false, false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete:
		return Route{Pattern: wildcard + "*", Dialect: OpenAI}, true, true
	}
	return Route{Dialect: OpenAI}, true, false
}
