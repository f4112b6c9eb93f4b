package forward

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// remember puts the request into the ring, once its tenant is known, so that strangers displace nobody.
func (p *Proxy) remember(x *exchange, r *http.Request) {
	p.inFlight(context.Background(), x, 1)
	if x.route.Kind != dialect.Generate && x.route.Kind != dialect.Embed {
		return
	}
	for _, name := range x.rules.Headers(x.who.Tenant) {
		if value := headerValue(r.Header, name); value != "" {
			if x.headers == nil {
				x.headers = map[string]string{}
			}
			x.headers[name] = value
		}
	}
	traceID := ""
	if id := x.span.SpanContext().TraceID(); id.IsValid() {
		traceID = id.String()
	}
	p.cfg.Recent.Add(recent.Request{
		ID: x.id, Object: x.object, TraceID: traceID, Start: x.start,
		Tenant: x.who.Tenant, Method: r.Method, Route: x.route.Pattern, Headers: x.headers,
	})
}

// finish settles what was taken and records what happened. aborted: the answer was cut.
func (p *Proxy) finish(ctx context.Context, x *exchange, r *http.Request, aborted bool) {
	end := p.cfg.Now()
	if aborted && x.err == nil {
		x.err = errClientGone
	}
	if errors.Is(x.err, errClientGone) {
		x.status = statusClientGone
	}
	x.cancel(nil)
	p.memory.take(x.entry, -x.held)
	x.held = 0
	x.count()
	known := x.usage.Known()
	if x.ticket != nil {
		for _, would := range x.ticket.Shadowed {
			p.metrics.shadowed.Add(ctx, 1, metric.WithAttributes(semconv.Tenant.String(p.metrics.tenants.Value(x.entry)), semconv.ErrorCode.String(would)))
		}
		x.ticket.Leave(x.used())
		p.inFlight(ctx, x, -1)
	}
	perToken := x.perToken()
	p.measure(ctx, x, r, since(x.start, end)/1e3, perToken)
	p.describe(x, r)
	if x.request != nil {
		p.verifySpans(ctx, x)
		p.learn(x, perToken)
		p.offer(x)
		p.cfg.Recent.Update(x.object, func(q *recent.Request) {
			q.Model, q.Stream, q.Done, q.Status, q.Error = x.request.Model, x.request.Stream, true, x.status, errorCode(x.err)
			q.PromptEstimate, q.PromptTokens, q.OutputTokens, q.UsageKnown = x.tokens, x.tokens, max(0, x.usage.Output), known
			q.CachedTokens, q.ReasoningTokens = max(0, x.usage.Cached), max(0, x.usage.Reasoning)
			if x.usage.Prompt >= 0 {
				q.PromptTokens = x.usage.Prompt
			}
			q.Decision, q.Gate, q.KV, q.Spans = x.decision, x.verdict, x.usage.KV, x.spans
			q.Timings = p.timings(x, perToken)
			q.Timings.Total = since(x.start, end)
		})
	} else {
		p.cfg.Recent.Update(x.object, func(q *recent.Request) {
			q.Done, q.Status, q.Error = true, x.status, errorCode(x.err)
			q.Timings = p.timings(x, perToken)
			q.Timings.Total = since(x.start, end)
		})
	}
	p.cfg.Recent.End(x.who.Tenant, x.object)
	if x.engine != nil {
		x.engine.End()
	}
	x.span.End()
}

// count takes what the answer said of its usage, besides what its headers did.
func (x *exchange) count() {
	said := x.answer.Usage()
	if said.Prompt >= 0 {
		x.usage.Prompt = said.Prompt
	}
	if said.Output >= 0 {
		x.usage.Output = max(said.Output, x.usage.Output)
	}
	x.usage.Cached, x.usage.Reasoning, x.usage.Model, x.usage.KV = said.Cached, said.Reasoning, said.Model, said.KV
}

// used is what the request counts for in the tenant's tokens: what the engine said, else what is known to have been
// produced, else what was reserved (negative); nothing when it was refused or failed.
func (x *exchange) used() int {
	switch {
	case x.usage.Prompt >= 0 || x.usage.Output >= 0:
		l := x.rules.Limits(x.who.Tenant)
		return l.Weigh(x.usage.Prompt, x.usage.Cached, x.usage.Output, x.usage.Reasoning)
	case x.request != nil && x.request.Background && x.status < http.StatusBadRequest:
		return -1 // it is made later
	case x.events > 0:
		return x.tokens + x.events // a stream that was cut: about one token an event
	case x.request == nil || !x.route.Counts() || x.status >= http.StatusBadRequest:
		return 0
	}
	return x.tokens
}

// perToken is the time between two tokens of a stream in seconds; 0 when it is not known.
func (x *exchange) perToken() float64 {
	if x.usage.Output < 2 || x.events < 2 {
		return 0
	}
	return since(x.first, x.last) / 1e3 / float64(x.usage.Output-1)
}

func (p *Proxy) timings(x *exchange, perToken float64) recent.Timings {
	ms := func(d interface{ Seconds() float64 }) float64 { return d.Seconds() * 1e3 }
	return recent.Timings{
		Queue: ms(x.queued), Body: ms(x.bodyTime), Decide: ms(x.decideTime), Headers: ms(x.headerTime),
		FirstToken: since(x.start, x.first), PerToken: perToken * 1e3,
	}
}

// describe fills the spans in.
func (p *Proxy) describe(x *exchange, r *http.Request) {
	if !x.span.IsRecording() {
		return
	}
	a := append(make([]attribute.KeyValue, 0, 20),
		semconv.HTTPMethod.String(methodLabel(r.Method)), semconv.HTTPRoute.String(x.route.Pattern), semconv.HTTPStatus.Int(x.status),
		semconv.RequestID.String(x.id))
	if x.who.Tenant != "" {
		a = append(a, semconv.Tenant.String(x.who.Tenant), semconv.Credential.String(x.who.By))
	}
	if q := x.request; q != nil && x.route.Operation != "" {
		x.span.SetName(x.route.Operation + " " + q.Model)
		a = append(a, semconv.GenAIOperation.String(x.route.Operation), semconv.GenAIProvider.String(p.cfg.Kind), semconv.GenAIModel.String(q.Model))
		if q.MaxTokens > 0 {
			a = append(a, semconv.GenAIMaxTokens.Int(q.MaxTokens))
		}
		if x.usage.Prompt >= 0 {
			a = append(a, semconv.GenAIInputTokens.Int(x.usage.Prompt))
		}
		if x.usage.Output >= 0 {
			a = append(a, semconv.GenAIOutputTokens.Int(x.usage.Output))
		}
		if x.usage.Cached >= 0 {
			a = append(a, semconv.GenAICachedTokens.Int(x.usage.Cached))
		}
		if x.usage.Reasoning >= 0 {
			a = append(a, semconv.GenAIReasoningTokens.Int(x.usage.Reasoning))
		}
		if x.usage.Model != "" {
			a = append(a, semconv.GenAIResponseModel.String(x.usage.Model))
		}
	}
	if x.decision != nil {
		a = append(a, semconv.Policy.String(x.decision.Profile), semconv.Rule.String(x.decision.Rule), semconv.PolicyDigest.String(x.decision.PolicyDigest))
	}
	if x.verdict != nil {
		a = append(a, semconv.GateReason.String(string(x.verdict.Reason)))
	}
	failure := errorCode(x.err)
	if failure == "" && x.status >= http.StatusInternalServerError {
		failure = strconv.Itoa(x.status)
	}
	if failure != "" {
		a = append(a, semconv.ErrorType.String(failure))
		x.span.SetStatus(otelcodes.Error, failure)
		if x.engine != nil {
			x.engine.SetStatus(otelcodes.Error, failure)
		}
	}
	x.span.SetAttributes(a...)
	if x.engine != nil {
		x.engine.SetAttributes(semconv.HTTPStatus.Int(x.status))
	}
}

// learn teaches the gate what an answer that ended well showed.
func (p *Proxy) learn(x *exchange, perToken float64) {
	if x.err != nil || !x.route.Counts() || x.status != http.StatusOK || x.usage.Prompt <= 0 {
		return
	}
	reply := gate.Reply{
		Tenant: x.who.Tenant, Prompt: promptOf(x.request), PromptTokens: x.usage.Prompt, OutputTokens: x.usage.Output,
		SecondsPerStep: perToken, Compressed: x.early,
	}
	if x.exact {
		reply.Prompt = gate.Prompt{}
	}
	p.cfg.Gate.Reply(x.request.Model, reply)
}

// errorCode is the stable code of what went wrong; empty when nothing did.
func errorCode(err error) string {
	if err == nil {
		return ""
	}
	var known *dialect.Error
	switch {
	case errors.As(err, &known):
		return known.Code
	case errors.Is(err, errClientGone):
		return codes.ClientGone
	}
	return "internal"
}
