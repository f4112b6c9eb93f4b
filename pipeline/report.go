package pipeline

import (
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Outcome is a page's reply and what happened to it. Body belongs to the pipeline: it is valid until Release.
type Outcome struct {
	Report
	Body    []byte
	Release func()
}

// Report says what happened to a page: everything that a trace, a metric or a person is shown.
type Report struct {
	Tenant, Model, Sequence string
	Policy, PolicyDigest    string // profile and the digest of what it resolves to
	Rule, RuleSource        string // rule that decided, and its file:line
	Reason                  string
	Decision                policy.Decision // Tenant is empty where the page was refused before
	Outcome                 string          // semconv.OutcomeCompressed, OutcomeExact or OutcomeStored
	Object                  string          // key in the store; empty when nothing was kept

	Layers, Heads, Tokens int
	Cores                 int     // mean per layer and head, rounded
	Dropped               float64 // tokens that no core stands for, mean per layer and head; 0 unless the method evicts
	Asked, Ratio          float64 // cores / tokens: what the policy asked for and what was reached; Asked is 0 with a threshold
	BytesIn, BytesOut     int
	Boundary              string // semconv.BoundaryPage, BoundaryTokenizer or BoundaryNone
	HeadWeights           string // semconv.HeadWeightsProfile, HeadWeightsModel or HeadWeightsNone
	Device                string

	KeySimilarity  float64
	Measured       bool    // the page brought queries: the next three say something
	AttentionError float64 // relative error of the attention output, mean over layers and query heads
	LookupError    float64 // of the queries that look one token up
	FactsLost      float64 // what the model's curve expects of the lookup error: the share of the page's facts that are lost
	WorstError     float64 // of the worst head
	WorstHead      string  // "layer/query head"
	Guard          string  // semconv.GuardOff ...
	ValueError     float64 // relative error of the values, where no queries measure the attention; an estimate that only ranks

	PerLayer []LayerReport // of a page that was compressed now; valid as long as the report's Body

	Stages  Stages
	Elapsed time.Duration
}

// LayerReport is what became of one layer of a page.
type LayerReport struct {
	Layer          int     // of the model
	Ratio          float64 // cores / tokens, mean over KV heads
	KeySimilarity  float64 // mean over KV heads
	AttentionError float64 // mean over query heads; meaningful where the page is Measured
}

// Stages are the times of a page's steps.
type Stages struct{ Decide, Compress, Measure, Store time.Duration }

// attributes are those of the compress span and of the page's own.
func (r *Report) attributes() []attribute.KeyValue {
	a := []attribute.KeyValue{
		semconv.Tenant.String(r.Tenant), semconv.Model.String(r.Model), semconv.Policy.String(r.Policy), semconv.Rule.String(r.Rule),
		semconv.Outcome.String(r.Outcome), semconv.Layers.Int(r.Layers), semconv.Heads.Int(r.Heads), semconv.Tokens.Int(r.Tokens),
		semconv.Cores.Int(r.Cores), semconv.Ratio.Float64(r.Ratio), semconv.KeySimilarity.Float64(r.KeySimilarity),
		semconv.Guard.String(r.Guard), semconv.Device.String(r.Device), semconv.BoundarySource.String(r.Boundary),
	}
	if r.HeadWeights != "" {
		a = append(a, semconv.HeadWeights.String(r.HeadWeights))
	}
	if r.Measured {
		a = append(a, semconv.AttentionError.Float64(r.AttentionError), semconv.WorstHead.String(r.WorstHead))
	}
	return a
}

// fidelity is the report as the reply's metadata carries it.
func (r *Report) fidelity() map[string]string {
	m := map[string]string{"key_similarity": number(r.KeySimilarity), "guard": r.Guard}
	if r.HeadWeights == semconv.HeadWeightsModel {
		m["head_weights"] = r.HeadWeights
	}
	if !r.Measured && r.Outcome == semconv.OutcomeCompressed {
		m["value_error"] = number(r.ValueError)
	}
	if r.Measured {
		m["lookup_error"], m["facts_lost"] = number(r.LookupError), number(r.FactsLost)
		m["attention_error"], m["attention_worst"], m["attention_worst_head"] = number(r.AttentionError), number(r.WorstError), r.WorstHead
	}
	return m
}

func number(x float64) string { return fmt.Sprintf("%.6g", x) }

// CodeOf is the stable code of an error, "internal" when it has none.
func CodeOf(err error) string {
	var c interface{ Code() string }
	if errors.As(err, &c) {
		return c.Code()
	}
	return codes.Internal
}
