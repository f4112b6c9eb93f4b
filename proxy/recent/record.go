package recent

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/spans"
)

// Request is what is known of one request. Times are in milliseconds.
type Request struct {
	ID      string    `json:"id"`     // X-Request-Id
	Object  string    `json:"object"` // name that the proxy gave to the request's KV
	TraceID string    `json:"traceId"`
	Start   time.Time `json:"start"`

	Tenant string `json:"tenant,omitempty"`
	Method string `json:"method"`
	Route  string `json:"route"`
	Model  string `json:"model,omitempty"`
	Stream bool   `json:"stream,omitempty"`

	Done   bool   `json:"done"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error,omitempty"` // stable code

	PromptTokens   int  `json:"promptTokens,omitempty"`   // as the engine counted, else as estimated
	PromptEstimate int  `json:"promptEstimate,omitempty"` // what the policy decided by
	OutputTokens   int  `json:"outputTokens,omitempty"`
	UsageKnown     bool `json:"usageKnown"`

	CachedTokens    int `json:"cachedTokens,omitempty"`    // of the prompt: read from the engine's prefix cache
	ReasoningTokens int `json:"reasoningTokens,omitempty"` // of the answer

	Headers map[string]string `json:"headers,omitempty"` // that the tenant's rules look at

	Decision *policy.Decision `json:"decision,omitempty"`
	Gate     *gate.Verdict    `json:"gate,omitempty"`
	Spans    *Spans           `json:"protected,omitempty"` // nil: the policy protects no messages, or nothing was to be compressed
	KV       json.RawMessage  `json:"engineKv,omitempty"`  // kv_transfer_params that the engine returned

	Timings Timings `json:"timings"`
	Layers  []Layer `json:"layers,omitempty"` // of all pages that were compressed for it, by layer
	Pages   []Page  `json:"pages"`
	Omitted int     `json:"pagesOmitted,omitempty"` // pages beyond those kept
}

// Header is the value of a header that the tenant's rules look at.
func (r *Request) Header(name string) string { return r.Headers[name] }

// Spans are the messages that the policy protects.
type Spans struct {
	Roles   []policy.Role `json:"roles"`
	Outcome string        `json:"outcome"` // as package spans names it
	Why     string        `json:"why,omitempty"`
	Spans   []spans.Span  `json:"spans,omitempty"`
	Tokens  int           `json:"tokens,omitempty"` // of all of them
	// Mismatch: the engine has counted other tokens for the prompt than its /tokenize, so the spans may be wrong.
	Mismatch bool    `json:"mismatch,omitempty"`
	MS       float64 `json:"ms"` // to find them
}

// Timings are a request's, in milliseconds. What did not happen is 0.
type Timings struct {
	Queue      float64 `json:"queueMs"`
	Body       float64 `json:"bodyMs"` // reading the request
	Decide     float64 `json:"decideMs"`
	Headers    float64 `json:"headersMs"` // of the engine, since the request was sent
	FirstToken float64 `json:"firstTokenMs"`
	PerToken   float64 `json:"perTokenMs"`
	Total      float64 `json:"totalMs"`
}

// Page is what the page plane did for a request.
type Page struct {
	At             time.Time `json:"at"`
	Sequence       string    `json:"sequence,omitempty"`
	Outcome        string    `json:"outcome"`
	Rule           string    `json:"rule,omitempty"`
	Profile        string    `json:"profile,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	Object         string    `json:"object,omitempty"` // key in the store
	Device         string    `json:"device,omitempty"`
	Error          string    `json:"error,omitempty"` // stable code
	Layers         int       `json:"layers,omitempty"`
	Heads          int       `json:"heads,omitempty"`
	Tokens         int       `json:"tokens,omitempty"`
	Cores          int       `json:"cores,omitempty"`
	Ratio          float64   `json:"ratio,omitempty"`
	BytesIn        int       `json:"bytesIn,omitempty"`
	BytesOut       int       `json:"bytesOut,omitempty"`
	Guard          string    `json:"guard,omitempty"`
	KeySimilarity  float64   `json:"keySimilarity,omitempty"`
	Measured       bool      `json:"measured"` // the page brought queries: the next three say something
	AttentionError float64   `json:"attentionError,omitempty"`
	WorstError     float64   `json:"worstError,omitempty"`
	WorstHead      string    `json:"worstHead,omitempty"`
	DecideMS       float64   `json:"decideMs"`
	CompressMS     float64   `json:"compressMs"`
	StoreMS        float64   `json:"storeMs"`
	TotalMS        float64   `json:"totalMs"`

	PerLayer []Layer `json:"-"` // given to Ring.Page, which sums them up in the request
}

// Layer sums up what became of one layer of the model, over pages. A page that was stored already says nothing of its layers.
type Layer struct {
	Layer          int     `json:"layer"`
	Tokens         int     `json:"tokens"`
	Ratio          float64 `json:"ratio"`          // cores / tokens, mean over KV heads
	KeySimilarity  float64 `json:"keySimilarity"`  // mean over KV heads
	Measured       bool    `json:"measured"`       // a page brought queries
	AttentionError float64 `json:"attentionError"` // the worst page's, mean over query heads
}

// maxLayers bounds the layers kept of a request.
const maxLayers = 512

// add takes a page's layers over.
func (r *Request) add(layers []Layer) {
	for _, l := range layers {
		i, found := slices.BinarySearchFunc(r.Layers, l.Layer, func(a Layer, layer int) int { return cmp.Compare(a.Layer, layer) })
		if !found {
			if len(r.Layers) < maxLayers {
				r.Layers = slices.Insert(r.Layers, i, l)
			}
			continue
		}
		to := &r.Layers[i]
		share := float64(l.Tokens) / float64(max(1, to.Tokens+l.Tokens))
		to.Tokens += l.Tokens
		to.Ratio += share * (l.Ratio - to.Ratio)
		to.KeySimilarity += share * (l.KeySimilarity - to.KeySimilarity)
		if l.Measured {
			to.Measured, to.AttentionError = true, max(to.AttentionError, l.AttentionError)
		}
	}
}

// Fidelity sums the pages up.
type Fidelity struct {
	Pages          int
	Ratio          float64 // cores / tokens, over all pages
	AttentionError float64 // the worst page's mean; meaningful with Measured
	Measured       bool
}

// Fidelity of the pages that were compressed or exact; Pages is 0 when there was none.
func (r *Request) Fidelity() Fidelity {
	var f Fidelity
	tokens, cores := 0, 0.0
	for i := range r.Pages {
		p := &r.Pages[i]
		if p.Error != "" || p.Tokens == 0 {
			continue
		}
		f.Pages++
		tokens += p.Tokens
		cores += p.Ratio * float64(p.Tokens)
		if p.Measured {
			f.Measured = true
			f.AttentionError = max(f.AttentionError, p.AttentionError)
		}
	}
	if tokens > 0 {
		f.Ratio = cores / float64(tokens)
	}
	return f
}
