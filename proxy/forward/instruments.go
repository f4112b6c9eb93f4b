package forward

import (
	"context"
	"net/http"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// modelLabels bounds the models that metrics tell apart: a client names what it likes.
const modelLabels = 64

type instruments struct {
	http, genai, first, perToken, usage metric.Float64Histogram
	refused, gate, spans, shadowed      metric.Int64Counter
	active                              metric.Int64UpDownCounter
	tenants                             *semconv.TenantLabel
	models                              *semconv.TenantLabel // the same bound, for other names

	sets    sync.Map // labels -> *options
	reasons sync.Map // gate.Reason -> []metric.AddOption
}

func newInstruments(provider metric.MeterProvider) (*instruments, error) {
	m := &instruments{tenants: semconv.NewTenantLabel(0), models: semconv.NewTenantLabel(modelLabels)}
	meter := provider.Meter(scope, metric.WithSchemaURL(semconv.GenAISchema))
	histograms := map[string]*metric.Float64Histogram{
		semconv.MetricHTTPDuration: &m.http, semconv.MetricGenAIDuration: &m.genai, semconv.MetricFirstToken: &m.first,
		semconv.MetricPerToken: &m.perToken, semconv.MetricTokenUsage: &m.usage,
	}
	counters := map[string]*metric.Int64Counter{semconv.MetricProxyRefused: &m.refused, semconv.MetricGate: &m.gate, semconv.MetricSpans: &m.spans, semconv.MetricProxyShadowed: &m.shadowed}
	for _, x := range semconv.Metrics() {
		var err error
		unit, description := metric.WithUnit(x.Unit), metric.WithDescription(x.Description)
		switch {
		case histograms[x.Name] != nil:
			*histograms[x.Name], err = meter.Float64Histogram(x.Name, unit, description)
		case counters[x.Name] != nil:
			*counters[x.Name], err = meter.Int64Counter(x.Name, unit, description)
		case x.Name == semconv.MetricProxyActive:
			m.active, err = meter.Int64UpDownCounter(x.Name, unit, description)
		}
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// labels are the values that a measurement is told apart by. There are few: each value is of a bounded set, so that what is
// made of them is made once.
type labels struct {
	kind          labelKind
	tenant        string
	route, method string // of HTTP
	status        int    // of HTTP
	operation     string // of GenAI, as are model and detail
	model, detail string
}

type labelKind byte

const (
	ofTenant labelKind = iota
	ofHTTP
	ofGenAI
	ofGenAIError // detail: the error's code
	ofTokens     // detail: input or output
)

// with makes the options of a set of labels, or finds those made before.
func (p *Proxy) with(l labels) *options {
	if found, ok := p.metrics.sets.Load(l); ok {
		return found.(*options)
	}
	attributes := []attribute.KeyValue{semconv.Tenant.String(l.tenant)}
	switch l.kind {
	case ofTenant:
	case ofHTTP:
		attributes = append(attributes, semconv.HTTPRoute.String(l.route), semconv.HTTPMethod.String(l.method), semconv.HTTPStatus.Int(l.status))
	default:
		attributes = append(attributes, semconv.GenAIOperation.String(l.operation), semconv.GenAIProvider.String(p.cfg.Kind), semconv.GenAIModel.String(l.model))
	}
	switch l.kind {
	case ofGenAIError:
		attributes = append(attributes, semconv.ErrorType.String(l.detail))
	case ofTokens:
		attributes = append(attributes, semconv.GenAITokenType.String(l.detail))
	}
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	made := &options{[]metric.RecordOption{set}, []metric.AddOption{set}}
	p.metrics.sets.Store(l, made)
	return made
}

// options are in slices, which calls take as they are.
type options struct {
	record []metric.RecordOption
	add    []metric.AddOption
}

// inFlight counts a request of a tenant in or out.
func (p *Proxy) inFlight(ctx context.Context, x *exchange, n int64) {
	p.metrics.active.Add(ctx, n, p.with(labels{kind: ofTenant, tenant: p.metrics.tenants.Value(x.entry)}).add...)
}

func (m *instruments) reason(r gate.Reason) []metric.AddOption {
	if found, ok := m.reasons.Load(r); ok {
		return found.([]metric.AddOption)
	}
	made := []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(semconv.GateReason.String(string(r))))}
	m.reasons.Store(r, made)
	return made
}

func code(c string) metric.AddOption { return metric.WithAttributes(semconv.ErrorCode.String(c)) }

// methodLabel is a method that traces and metrics tell apart; a client may send any.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete:
		return method
	}
	return "other"
}

// measure records the metrics, within the request's span so that they carry its trace as an exemplar.
func (p *Proxy) measure(ctx context.Context, x *exchange, r *http.Request, seconds, perToken float64) {
	m := p.metrics
	l := labels{kind: ofHTTP, tenant: m.tenants.Value(x.entry), route: x.route.Pattern, method: methodLabel(r.Method), status: statusLabel(x.status)}
	m.http.Record(ctx, seconds, p.with(l).record...)
	if x.request == nil || x.route.Operation == "" || x.status >= http.StatusBadRequest && x.status != statusClientGone {
		return
	}
	l = labels{kind: ofGenAI, tenant: l.tenant, operation: x.route.Operation, model: m.models.Value(x.request.Model)}
	if l.detail = errorCode(x.err); l.detail != "" {
		l.kind = ofGenAIError
		m.genai.Record(ctx, seconds, p.with(l).record...)
		return
	}
	with := p.with(l).record
	m.genai.Record(ctx, seconds, with...)
	if !x.first.IsZero() {
		m.first.Record(ctx, since(x.start, x.first)/1e3, with...)
	}
	if perToken > 0 {
		m.perToken.Record(ctx, perToken, with...)
	}
	l.kind = ofTokens
	if x.usage.Prompt >= 0 {
		l.detail = semconv.TokenInput
		m.usage.Record(ctx, float64(x.usage.Prompt), p.with(l).record...)
	}
	if x.usage.Output >= 0 {
		l.detail = semconv.TokenOutput
		m.usage.Record(ctx, float64(x.usage.Output), p.with(l).record...)
	}
}

// statusLabel bounds the codes that metrics tell apart: an engine may answer with any.
func statusLabel(status int) int {
	if status < 0 || status > 599 {
		return 0
	}
	return status
}
