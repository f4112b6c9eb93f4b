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
	Anthropic
)

// Kind says how a route is handled.
type Kind int

// Kinds of routes.
const (
	Plain    Kind = iota // forwarded; a JSON body is inspected where it has one
	Generate             // produces tokens: decided, salted, given parameters, measured
	Embed                // reads a prompt and produces none: salted and measured
	Probe                // answered without a tenant: the health of the engine
	Named                // not in the table: only for tenants whose policy names it; nothing can be put into it
)

// Route is one path of an engine.
type Route struct {
	Pattern      string // label of metrics and spans: a path of the table
	Dialect      Dialect
	Kind         Kind
	Operation    string // gen_ai.operation.name; empty where there is none
	AlwaysStream bool   // the answer is a stream, whatever the request says
	UsageOption  bool   // a stream tells its usage only when it is asked to (stream_options)
	Keeps        bool   // the engine may keep the answer under its id, by which later requests ask for it
	Recalls      bool   // the path's third part is such an id
}

// Counts says whether tokens of a route are counted.
func (r *Route) Counts() bool { return r.Kind == Generate || r.Kind == Embed || r.Kind == Named }

// row is one line of the table of routes.
type row struct {
	methods string // separated by spaces
	Route
}

// routes is the table of what is forwarded. Every route of vLLM and TGI that is not in it is refused, for there a tenant's prompt
// would be computed without its salt, its policy and its limits, or the engine be changed for all: route_test.go has both engines'
// own tables, and says of each route why.
var routes = map[string]row{
	"/v1/chat/completions":       {"POST", Route{Kind: Generate, Operation: "chat", UsageOption: true}},
	"/v1/chat/completions/batch": {"POST", Route{Kind: Generate, Operation: "chat"}},
	"/v1/completions":            {"POST", Route{Kind: Generate, Operation: "text_completion", UsageOption: true}},
	"/v1/responses":              {"POST", Route{Kind: Generate, Operation: "chat", Keeps: true}},
	"/v1/messages":               {"POST", Route{Dialect: Anthropic, Kind: Generate, Operation: "chat"}},
	"/generate":                  {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion"}},
	"/":                          {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion"}}, // what huggingface_hub calls
	"/generate_stream":           {"POST", Route{Dialect: TGI, Kind: Generate, Operation: "text_completion", AlwaysStream: true}},

	"/v1/embeddings": {"POST", Route{Kind: Embed, Operation: "embeddings"}},
	"/v2/embed":      {"POST", Route{Kind: Embed, Operation: "embeddings"}},
	"/pooling":       {"POST", Route{Kind: Embed, Operation: "embeddings"}},
	"/classify":      {"POST", Route{Kind: Embed, Operation: "classify"}},
	"/score":         {"POST", Route{Kind: Embed, Operation: "rerank"}},
	"/v1/score":      {"POST", Route{Kind: Embed, Operation: "rerank"}},
	"/rerank":        {"POST", Route{Kind: Embed, Operation: "rerank"}},
	"/v1/rerank":     {"POST", Route{Kind: Embed, Operation: "rerank"}},
	"/v2/rerank":     {"POST", Route{Kind: Embed, Operation: "rerank"}},

	"/v1/models":                {"GET HEAD", Route{}},
	"/v1/models/*":              {"GET HEAD", Route{}},
	"/v1/responses/*":           {"GET DELETE", Route{Recalls: true}},
	"/v1/responses/*/cancel":    {"POST", Route{Recalls: true}},
	"/v1/messages/count_tokens": {"POST", Route{Dialect: Anthropic}},
	"/tokenize":                 {"POST", Route{}},
	"/detokenize":               {"POST", Route{}},
	"/chat_tokenize":            {"POST", Route{Dialect: TGI}},
	"/health":                   {"GET HEAD", Route{Kind: Probe}},
	"/metrics":                  {"GET", Route{}},
	"/version":                  {"GET", Route{}},
	"/info":                     {"GET", Route{Dialect: TGI}},
}

// starred are the patterns of the table with a part that may be anything.
var starred = func() (out []string) {
	for pattern := range routes {
		if strings.Contains(pattern, "*") {
			out = append(out, pattern)
		}
	}
	return out
}()

// Others is the label of routes that a policy names.
const Others = "other"

// Lookup finds the route of a request. A path that is not in the table has the kind Named, which only tenants may use whose
// policy names it. found is false for every path that is not in its plainest form (encoded, with empty, . or .. segments);
// allowed is false for a method that the path has not. The route's dialect is set in any case, for the error.
func Lookup(r *http.Request) (route Route, found, allowed bool) {
	p := r.URL.Path
	if r.URL.RawPath != "" || p == "" || p[0] != '/' || path.Clean(p) != p || strings.ContainsAny(p, "\\;\x00") {
		return Route{}, false, false
	}
	known, pattern := find(p)
	if known == nil {
		return Route{Pattern: Others, Kind: Named}, true, true
	}
	route = known.Route
	route.Pattern = pattern
	for method := range strings.FieldsSeq(known.methods) {
		if method == r.Method {
			return route, true, true
		}
	}
	return route, true, false
}

// find is the row of a path, and its pattern; nil when there is none.
func find(p string) (*row, string) {
	if known, ok := routes[p]; ok && !strings.Contains(p, "*") {
		return &known, p
	}
	for _, pattern := range starred {
		if matched, _ := path.Match(pattern, p); matched {
			known := routes[pattern]
			return &known, pattern
		}
	}
	return nil, ""
}

// Methods are those of a path, separated by commas; empty for one that is not in the table.
func Methods(p string) string {
	if known, _ := find(p); known != nil {
		return strings.ReplaceAll(known.methods, " ", ", ")
	}
	return ""
}
