package policy

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// Match is a rule's conditions, resolved: every request has a model that "*" matches and between 0 and MaxInt tokens.
type Match struct {
	Model     string `json:"model"`     // glob
	MinTokens int    `json:"minTokens"` // inclusive
	MaxTokens int    `json:"maxTokens"` // inclusive

	Headers []HeaderMatch `json:"headers,omitempty"` // sorted by name
}

// HeaderMatch is a condition on a header of a request through the proxy: it is there, once, and its value matches.
type HeaderMatch struct {
	Name  string `json:"name"`  // in canonical form
	Value string `json:"value"` // glob
}

func everything() Match { return Match{Model: "*", MinTokens: 0, MaxTokens: math.MaxInt} }

func (m *Match) matches(r *Request) bool {
	if r.Tokens < m.MinTokens || r.Tokens > m.MaxTokens || m.Model != "*" && !MatchModel(m.Model, r.Model) {
		return false
	}
	return m.unmatched(r) < 0
}

// unmatched is the index of the first header that does not match; -1 when all do.
func (m *Match) unmatched(r *Request) int {
	for i, h := range m.Headers {
		if value := r.header(h.Name); value == "" || !MatchModel(h.Value, value) {
			return i
		}
	}
	return -1
}

// covers reports whether m surely matches whatever other matches.
func (m *Match) covers(other *Match) bool {
	for _, h := range m.Headers {
		if !slices.Contains(other.Headers, h) {
			return false
		}
	}
	return m.MinTokens <= other.MinTokens && m.MaxTokens >= other.MaxTokens &&
		(m.Model == "*" || m.Model == other.Model || !strings.ContainsAny(other.Model, "*?") && MatchModel(m.Model, other.Model))
}

// Everything is the description of a Match without conditions.
const Everything = "every request"

// String says in words what matches.
func (m Match) String() string {
	s := Everything
	if m.Model != "*" {
		s = "requests for model " + m.Model
	}
	switch {
	case m.MinTokens > 0 && m.MaxTokens < math.MaxInt:
		s += " of " + strconv.Itoa(m.MinTokens) + " to " + strconv.Itoa(m.MaxTokens) + " tokens"
	case m.MinTokens > 0:
		s += " of at least " + strconv.Itoa(m.MinTokens) + " tokens"
	case m.MaxTokens < math.MaxInt:
		s += " of at most " + strconv.Itoa(m.MaxTokens) + " tokens"
	}
	for i, h := range m.Headers {
		s += [...]string{" with ", " and "}[min(i, 1)] + h.Name + ": " + h.Value
	}
	return s
}

// why says why a request matches or not; the first condition that fails is named.
func (m *Match) why(r *Request) string {
	model, tokens, header := r.Model, r.Tokens, m.unmatched(r)
	switch {
	case m.Model != "*" && !MatchModel(m.Model, model):
		return "model " + strconv.Quote(model) + " does not match " + strconv.Quote(m.Model)
	case tokens < m.MinTokens:
		return strconv.Itoa(tokens) + " tokens are fewer than minTokens " + strconv.Itoa(m.MinTokens)
	case tokens > m.MaxTokens:
		return strconv.Itoa(tokens) + " tokens are more than maxTokens " + strconv.Itoa(m.MaxTokens)
	case header >= 0:
		return "header " + m.Headers[header].Name + " does not match " + strconv.Quote(m.Headers[header].Value)
	}
	var holds []string
	if m.Model != "*" {
		holds = append(holds, "model "+strconv.Quote(model)+" matches "+strconv.Quote(m.Model))
	}
	if m.MinTokens > 0 {
		holds = append(holds, strconv.Itoa(tokens)+" tokens reach minTokens "+strconv.Itoa(m.MinTokens))
	}
	if m.MaxTokens < math.MaxInt {
		holds = append(holds, strconv.Itoa(tokens)+" tokens are within maxTokens "+strconv.Itoa(m.MaxTokens))
	}
	for _, h := range m.Headers {
		holds = append(holds, "header "+h.Name+" matches "+strconv.Quote(h.Value))
	}
	if len(holds) == 0 {
		return "the rule has no conditions"
	}
	return strings.Join(holds, ", ")
}

// rule is a compiled rule with the decision that it leads to; only the decision's tenant is still open.
type rule struct {
	match    Match
	decision Decision
}

// tenant is a compiled entry of the tenants section.
type tenant struct {
	name     string
	limits   Limits
	record   Record
	verify   Verify
	routes   []string // beyond the proxy's table, sorted
	rules    []rule
	headers  []string // that rules look at, sorted
	fallback Decision // when no rule matches
}

// Limits is what a tenant may use; 0 means that there is no limit.
type Limits struct {
	PagesPerSecond float64  `json:"pagesPerSecond,omitempty"`
	InFlightBytes  ByteSize `json:"inFlightBytes,omitempty"`
	StoredBytes    ByteSize `json:"storedBytes,omitempty"`
	QueuedBytes    ByteSize `json:"queuedBytes,omitempty"`

	RequestsPerSecond  float64 `json:"requestsPerSecond,omitempty"`
	TokensPerMinute    float64 `json:"tokensPerMinute,omitempty"`
	TokensPerHour      float64 `json:"tokensPerHour,omitempty"`
	TokensPerDay       float64 `json:"tokensPerDay,omitempty"`
	ConcurrentRequests int     `json:"concurrentRequests,omitempty"`
	QueuedRequests     int     `json:"queuedRequests,omitempty"`

	CachedWeight    *float64 `json:"cachedTokenWeight,omitempty"`    // nil: 1
	ReasoningWeight *float64 `json:"reasoningTokenWeight,omitempty"` // nil: 1
	Shadow          bool     `json:"shadow,omitempty"`               // rates and budgets of requests and tokens only report
}

// Weigh is what the tokens of a request count: of the prompt, those of it that were read from a cache, of the answer, and those of it
// that are reasoning. Numbers below zero are not known.
func (l *Limits) Weigh(prompt, cached, output, reasoning int) int {
	prompt, output = max(0, prompt), max(0, output)
	sum := float64(prompt + output)
	if l.CachedWeight != nil {
		sum -= (1 - *l.CachedWeight) * float64(min(max(0, cached), prompt))
	}
	if l.ReasoningWeight != nil {
		sum -= (1 - *l.ReasoningWeight) * float64(min(max(0, reasoning), output))
	}
	return int(math.Ceil(sum))
}

// Metered says whether the tenant's tokens are limited.
func (l *Limits) Metered() bool {
	return l.TokensPerMinute > 0 || l.TokensPerHour > 0 || l.TokensPerDay > 0
}
