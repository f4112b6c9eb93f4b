package forward

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/spans"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// protect finds the messages that the policy keeps exact. Where that fails the whole prompt stays exact: what is to be kept
// is kept, and the request is served.
func (p *Proxy) protect(ctx context.Context, x *exchange) {
	if x.decision == nil || !x.verdict.Compress || p.cfg.Kind != VLLM || len(x.decision.Plan.Protect.Roles) == 0 {
		return
	}
	start := p.cfg.Now()
	roles := make([]string, len(x.decision.Plan.Protect.Roles))
	for i, r := range x.decision.Plan.Protect.Roles {
		roles[i] = string(r)
	}
	var err error
	x.found, err = p.find(ctx, x, roles)
	outcome := spans.OutcomeOf(x.found, err)
	x.spans = &recent.Spans{
		Roles: x.decision.Plan.Protect.Roles, Outcome: string(outcome), Spans: x.found.Spans, MS: since(start, p.cfg.Now()),
	}
	for _, s := range x.found.Spans {
		x.spans.Tokens += s[1] - s[0]
	}
	if x.found.Tokens > 0 {
		x.tokens, x.exact = x.found.Tokens, true
	}
	p.countSpans(ctx, outcome)
	if err == nil { // before the engine sends pages
		if x.found.Spans == nil {
			x.found.Spans = []spans.Span{} // known to be none: an adapter is told so
		}
		p.cfg.Recent.Protect(x.who.Tenant, x.object, x.found.Spans)
	}
	if err != nil {
		x.spans.Why = err.Error()
		x.verdict = &gate.Verdict{Reason: gate.Unknown, Why: "the messages that the policy protects were not found: " + err.Error()}
	}
}

func (p *Proxy) find(ctx context.Context, x *exchange, roles []string) (spans.Found, error) {
	if x.route.Pattern == "/v1/completions" { // text without messages: nobody's role is in it
		return spans.Found{}, nil
	}
	chat, err := x.request.Chat()
	switch {
	case err != nil:
		return spans.Found{}, &spans.Error{Outcome: spans.OutcomeUnsupported, Why: err.Error()}
	case p.cfg.Spans == nil:
		return spans.Found{}, &spans.Error{Outcome: spans.OutcomeUnavailable, Why: "nothing is configured that finds them"}
	}
	return p.cfg.Spans.Find(ctx, x.who.Tenant, chat, roles)
}

// verifySpans compares with what the engine has counted: spans of other tokens than the prompt's protect the wrong ones.
func (p *Proxy) verifySpans(ctx context.Context, x *exchange) {
	if x.found.Tokens == 0 || x.usage.Prompt < 0 || x.usage.Prompt == x.found.Tokens {
		return
	}
	x.spans.Mismatch = true
	p.cfg.Spans.Mismatch(x.request.Model)
	p.countSpans(ctx, "mismatch")
	p.cfg.Logger.WarnContext(ctx, "tokenize_mismatch", "request_id", x.id, "model", x.request.Model, "tokenize", x.found.Tokens, "engine", x.usage.Prompt,
		"effect", "prompts of this model with protected messages stay exact for a while")
}

func (p *Proxy) countSpans(ctx context.Context, outcome spans.Outcome) {
	p.metrics.spans.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(semconv.Outcome.String(string(outcome)))))
}
