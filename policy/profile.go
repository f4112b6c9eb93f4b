package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Profile is a resolved way to compress: every default is filled in. It belongs to the Set that made it: read only.
//
// With MethodNone only Method, Ratio (1), Bits and Store mean anything; with a method that does not cluster, Threshold, Budget,
// Clusters, Exact, Regular and Chunk do not. With a Threshold the number of cores follows from the data: Ratio is 1 and
// Exact 0.
type Profile struct {
	Method      Method      `json:"method" yaml:"method"`
	Ratio       float64     `json:"ratio" yaml:"ratio"`                             // tokens kept / tokens given, in (0, 1]
	Threshold   *float64    `json:"threshold,omitempty" yaml:"threshold,omitempty"` // similarity in (-1, 1] that replaces Ratio; nil: none
	Budget      Budget      `json:"budget,omitempty" yaml:"budget,omitempty"`
	HeadWeights [][]float64 `json:"headWeights,omitempty" yaml:"headWeights,omitempty"` // [layers of the model][KV heads], in [1/64, 64]: larger keeps more; nil: as the model's are known; {{1}}: all alike
	Clusters    Clusters    `json:"clusters,omitempty" yaml:"clusters,omitempty"`
	Exact       float64     `json:"exact" yaml:"exact"`                         // share of the budget, in [0, 1), kept unmerged
	Regular     bool        `json:"regular,omitempty" yaml:"regular,omitempty"` // equal budget met to the core
	FP8         bool        `json:"fp8,omitempty" yaml:"fp8,omitempty"`         // cores in 8 bits (E4M3), with a scale per head
	Bits        int         `json:"bits,omitempty" yaml:"bits,omitempty"`       // of each key and value: 4 or 8; 0: the page's own type
	Chunk       Chunk       `json:"chunk,omitzero" yaml:"chunk,omitempty"`
	Protect     Protect     `json:"protect,omitzero" yaml:"protect,omitempty"`
	Guard       Guard       `json:"guard,omitzero" yaml:"guard,omitempty"`
	Store       Store       `json:"store,omitzero" yaml:"store,omitempty"`
	Assign      bool        `json:"assign,omitempty" yaml:"assign,omitempty"` // also return the core of every token
}

// Chunk bounds a chunk's length in tokens; 1 <= Min <= Max.
type Chunk struct {
	Min int `json:"min" yaml:"min"`
	Max int `json:"max" yaml:"max"`
}

// Protect names the tokens that stay as they are. Spans are sorted and do not overlap; Patterns and Roles are
// sorted, each once.
type Protect struct {
	Sinks  int    `json:"sinks" yaml:"sinks"`   // first tokens
	Recent int    `json:"recent" yaml:"recent"` // last tokens
	Spans  []Span `json:"spans,omitempty" yaml:"spans,omitempty"`

	Patterns []string `json:"patterns,omitempty" yaml:"patterns,omitempty"` // texts; a token that overlaps one is kept
	Roles    []Role   `json:"roles,omitempty" yaml:"roles,omitempty"`       // of a chat's messages, whose tokens the proxy finds
}

// Guard bounds the measured loss; a bound of 0 is none, and with none there is no guard.
type Guard struct {
	MaxFactsLost      float64     `json:"maxFactsLost,omitempty" yaml:"maxFactsLost,omitempty"`           // expected share, in (0, 1)
	MaxAttentionError float64     `json:"maxAttentionError,omitempty" yaml:"maxAttentionError,omitempty"` // of old policies: it hardly tells loss
	LossCurve         [][]float64 `json:"lossCurve,omitempty" yaml:"lossCurve,omitempty"`                 // points {lookup error, share of facts lost} of the tenant's model; nil: a known model's
	OnViolation       OnViolation `json:"onViolation" yaml:"onViolation"`
}

// None reports whether nothing is bounded.
func (g *Guard) None() bool { return g.MaxFactsLost == 0 && g.MaxAttentionError == 0 }

// Store says how the object is kept; TTL 0 leaves it to the store.
type Store struct {
	TTL Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
}

// Untouched reports whether pages leave as they came: all their tokens, in their own type.
func (p *Profile) Untouched() bool { return p.Method == MethodNone && p.Bits == 0 }

// AlikeHeads reports whether the profile says that no head weighs more than another.
func (p *Profile) AlikeHeads() bool {
	return len(p.HeadWeights) == 1 && len(p.HeadWeights[0]) == 1 && p.HeadWeights[0][0] == 1
}

// Digest is the SHA-256, in hexadecimal, of everything in the profile that can change a compressed page. The time that the
// object is kept is not part of it, nor is the profile's name.
func (p Profile) Digest() string {
	p.Store = Store{}
	return digest("semproxy.policy.profile.v1", p)
}

// digest hashes a value's JSON, whose field order is fixed and whose map keys are sorted.
func digest(kind string, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("policy: a resolved value cannot be written: " + err.Error()) // finite numbers and text only: cannot happen
	}
	sum := sha256.Sum256(append([]byte(kind+"\n"), data...))
	return hex.EncodeToString(sum[:])
}
