package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport"
)

// planeHandler answers the page plane's subjects with the pipeline.
type planeHandler struct{ p *pipeline.Pipeline }

var _ transport.Handler = planeHandler{}

// Reply headers that say what happened to a page; the same is in the metadata of the cores.
const (
	HeaderOutcome = "Semproxy-Outcome"
	headerRule    = "Semproxy-Rule"
	HeaderObject  = "Semproxy-Object"
	headerRatio   = "Semproxy-Ratio"
	headerGuard   = "Semproxy-Guard"
	HeaderReason  = "Semproxy-Reason"
)

func (h planeHandler) Compress(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	out, err := h.p.Compress(context.WithValue(ctx, pageBlob{}, body), tenant, body)
	if err != nil {
		return transport.Reply{}, err
	}
	// An exact page is what its sender has.
	return transport.Reply{Body: out.Body, Spare: out.Outcome == semconv.OutcomeExact, Release: out.Release, Header: map[string]string{
		HeaderOutcome: out.Outcome, headerRule: out.Rule, HeaderObject: out.Object, headerGuard: out.Guard,
		headerRatio: strconv.FormatFloat(out.Ratio, 'g', 6, 64), HeaderReason: out.Reason,
	}}, nil
}

// Get answers with the object that the body names, or with the longest stored prefix where it is a request for that.
func (h planeHandler) Get(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	if len(body) > 0 && body[0] == '{' {
		blob, err := h.p.Prefix(ctx, tenant, body)
		return transport.Reply{Body: blob}, err
	}
	blob, err := h.p.Get(ctx, tenant, string(body))
	return transport.Reply{Body: blob}, err
}

// Stat answers with the tenant's state, or with that of the object whose name is the body.
func (h planeHandler) Stat(ctx context.Context, tenant string, body []byte) (transport.Reply, error) {
	state, err := h.p.Stat(ctx, tenant, string(body))
	if err != nil {
		return transport.Reply{}, err
	}
	blob, err := json.Marshal(state)
	return transport.Reply{Body: blob}, err
}

// tenantLimits reads the limits of the policy in force.
type tenantLimits struct{ rules func() *policy.Set }

var _ transport.Limiter = tenantLimits{}

func (t tenantLimits) Limits(tenant string) (transport.Limits, bool) {
	set := t.rules()
	l := set.Limits(tenant)
	entry, _ := set.Resolve(tenant)
	return transport.Limits{PagesPerSecond: l.PagesPerSecond, InFlightBytes: int64(l.InFlightBytes)}, entry == tenant
}

// Models answers the pipeline's questions from the configuration's list.
type Models struct {
	list   []config.Model
	tables *delimiter.Cache
}

var _ pipeline.Model = (*Models)(nil)

// NewModels takes the models of the configuration; the first pattern that matches a name is its model.
func NewModels(list []config.Model) *Models {
	return &Models{list: list, tables: delimiter.NewCache(0)}
}

// Layout is that of the first entry whose pattern matches.
func (m *Models) Layout(model string) string { return m.of(model).Layout }

// of is the first entry whose pattern matches; an empty one when there is none.
func (m *Models) of(model string) config.Model {
	for _, e := range m.list {
		if policy.MatchModel(e.Match, model) {
			return e
		}
	}
	return config.Model{}
}

// Boundary marks the delimiters; a model without a tokenizer is cut by length alone.
func (m *Models) Boundary(model string, dst []byte, n int, at func(int) int64) (bool, error) {
	file := m.of(model).TokenizerFile
	if file == "" {
		return false, nil
	}
	table, err := m.tables.Table(file)
	if err != nil {
		return false, err
	}
	table.MarkBoundary(dst[:0], n, at)
	return true, nil
}

// Text gives the tokens' texts of a model whose tokenizer is configured.
func (m *Models) Text(model string) (text func(id int64) (string, bool), ok bool, err error) {
	file := m.of(model).TokenizerFile
	if file == "" {
		return nil, false, nil
	}
	table, err := m.tables.Table(file)
	if err != nil {
		return nil, false, err
	}
	return table.Text, true, nil
}

// Load reads every tokenizer, so that a bad file stops the start and not a page.
func (m *Models) Load() error {
	for _, e := range m.list {
		if e.TokenizerFile == "" {
			continue
		}
		if _, err := m.tables.Table(e.TokenizerFile); err != nil {
			return fmt.Errorf("models: tokenizer of %q: %w", e.Match, err)
		}
	}
	return nil
}
