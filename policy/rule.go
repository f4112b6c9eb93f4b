package policy

import (
	"math"
	"strconv"
	"strings"
)

// Match is a rule's conditions, resolved: every request has a model that "*" matches and between 0 and MaxInt tokens.
type Match struct {
	Model     string `json:"model"`     // glob
	MinTokens int    `json:"minTokens"` // inclusive
	MaxTokens int    `json:"maxTokens"` // inclusive
}

func everything() Match { return Match{Model: "*", MinTokens: 0, MaxTokens: math.MaxInt} }

func (m *Match) matches(model string, tokens int) bool {
	return tokens >= m.MinTokens && tokens <= m.MaxTokens && (m.Model == "*" || MatchModel(m.Model, model))
}

// covers reports whether m surely matches whatever other matches.
func (m *Match) covers(other *Match) bool {
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
	return s
}

// why says why a request matches or not; the first condition that fails is named.
func (m *Match) why(model string, tokens int) string {
	switch {
	case m.Model != "*" && !MatchModel(m.Model, model):
		return "model " + strconv.Quote(model) + " does not match " + strconv.Quote(m.Model)
	case tokens < m.MinTokens:
		return strconv.Itoa(tokens) + " tokens are fewer than minTokens " + strconv.Itoa(m.MinTokens)
	case tokens > m.MaxTokens:
		return strconv.Itoa(tokens) + " tokens are more than maxTokens " + strconv.Itoa(m.MaxTokens)
	case *m == everything():
		return "the rule has no conditions"
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
	rules    []rule
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
	ConcurrentRequests int     `json:"concurrentRequests,omitempty"`
	QueuedRequests     int     `json:"queuedRequests,omitempty"`
}
