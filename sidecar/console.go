package sidecar

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/sidecar/reports"
	"github.com/semproxy/semproxy/sidecar/studio"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// look is what the admin console shows: sums per tenant, the last pages, and a studio to try policies on them.
type look struct {
	board  *recent.Board
	studio *studio.Studio
}

// startConsole comes before the page plane, whose pages it counts.
func (s *Sidecar) startConsole(_ context.Context, opt Options) error {
	s.look.board = recent.NewBoard(nil)
	s.ring.OnDone(func(r *recent.Request) { s.look.board.Request(s.entry(r.Tenant), r) })
	if !s.cfg.RunsPages() {
		return nil // the studio compresses, and has what was recorded of pages
	}
	known := NewModels(s.cfg.Models)
	vocabulary, err := studio.Vocabulary()
	if err != nil {
		return err
	}
	s.look.studio = studio.New(studio.Options{
		Workers: 0, Models: known, Text: opt.Text, Words: studio.Words(known.Text, vocabulary),
	})
	s.onStop(func(context.Context) error { s.look.studio.Close(); return nil })
	return nil
}

// entry is the tenant of the policy that serves a tenant: a name that whoever sends cannot choose.
func (s *Sidecar) entry(tenant string) string {
	if name, ok := s.rules().Resolve(tenant); ok {
		return name
	}
	return "denied"
}

// record counts a page, and keeps a copy of it where its tenant's policy allows that.
func (l *look) record(s *Sidecar, r *reports.Report, blob []byte) {
	rec := recent.PageRecord{Tenant: r.Tenant, Model: r.Model, TraceID: r.TraceID, Page: r.Page}
	if p, ok := s.rules().Profile(r.Page.Profile); ok {
		rec.Method = string(p.Method)
	}
	name := l.board.Page(s.entry(r.Tenant), &rec)
	if blob == nil || r.Page.Error != "" {
		return
	}
	kept, dropped := l.studio.Record(name, r.Tenant, blob, s.rules().Record(r.Tenant))
	if kept {
		l.board.Keep(name, true)
	}
	for _, id := range dropped {
		l.board.Keep(id, false)
	}
}

// forget drops what a new policy does not let be kept.
func (l *look) forget(set *policy.Set) {
	if l.studio == nil {
		return
	}
	for _, id := range l.studio.Forget(set.Record) {
		l.board.Keep(id, false)
	}
}

// pageOf is a page's report as the console and requests show it.
func pageOf(r *pipeline.Report, err error) recent.Page {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	one := recent.Page{
		At: time.Now(), Sequence: r.Sequence, Outcome: r.Outcome, Rule: r.Rule, Profile: r.Policy, Reason: r.Reason, Object: r.Object,
		Device: r.Device, Layers: r.Layers, Heads: r.Heads, Tokens: r.Tokens, Cores: r.Cores, Ratio: r.Ratio, BytesIn: r.BytesIn,
		BytesOut: r.BytesOut, Guard: r.Guard, KeySimilarity: r.KeySimilarity, Measured: r.Measured, AttentionError: r.AttentionError,
		WorstError: r.WorstError, WorstHead: r.WorstHead, DecideMS: ms(r.Stages.Decide), CompressMS: ms(r.Stages.Compress),
		StoreMS: ms(r.Stages.Store), TotalMS: ms(r.Elapsed),
	}
	for _, l := range r.PerLayer {
		one.PerLayer = append(one.PerLayer, recent.Layer{
			Layer: l.Layer, Tokens: r.Tokens, Ratio: l.Ratio, KeySimilarity: l.KeySimilarity, Measured: r.Measured, AttentionError: l.AttentionError,
		})
	}
	if err != nil {
		one.Error, one.PerLayer = pipeline.CodeOf(err), nil
	}
	return one
}

// observer takes in what became of each page, and tells the process that has the requests.
func (s *Sidecar) observer() func(context.Context, *pipeline.Report, error) {
	return func(ctx context.Context, r *pipeline.Report, err error) {
		report := &reports.Report{Tenant: r.Tenant, Model: r.Model, Decision: r.Decision, Page: pageOf(r, err)}
		if trace := trace.SpanContextFromContext(ctx).TraceID(); trace.IsValid() {
			report.TraceID = trace.String()
		}
		blob, _ := ctx.Value(pageBlob{}).([]byte)
		s.learn(report, blob)
		if s.reports != nil {
			s.reports.Send(report)
		}
	}
}

// learn counts a page for the console, remembers it with its request, and teaches the gate what it costs. blob is nil where the page was
// another process's.
func (s *Sidecar) learn(r *reports.Report, blob []byte) {
	p := &r.Page
	s.look.record(s, r, blob)
	if !s.ring.Page(r.Tenant, r.TraceID, *p) {
		s.ring.Alone(r.Tenant, r.Model, r.TraceID, &r.Decision, *p)
	}
	if s.requests != nil && p.Error == "" && p.Outcome == semconv.OutcomeCompressed {
		s.requests.gate.Page(r.Model, p.Tokens, int64(p.BytesIn), p.TotalMS/1e3)
	}
}

// pageBlob is the context's key of the page that is being worked on.
type pageBlob struct{}

// notes say what is degraded though the sidecar is ready.
func (s *Sidecar) notes() []string {
	var out []string
	for _, w := range s.rules().Warnings() {
		out = append(out, "Policy: "+w.String())
	}
	if s.cfg.Policy.Path == "" {
		out = append(out, "There is no policy (policy.path): pages are answered uncompressed.")
	}
	if s.watcher != nil {
		if st := s.watcher.Status(); st.LastError != "" {
			out = append(out, "The last change of the policy was refused, the one before is in force: "+st.LastError)
		}
	}
	if s.redis != nil {
		if n := s.redis.Stats().Open; n > 0 {
			out = append(out, fmt.Sprintf("%d Redis servers do not answer and are left alone for a while.", n))
		}
	}
	out = append(out, s.linkNotes()...)
	if s.backend != nil && s.cfg.Compress.Device != "cpu" && strings.HasPrefix(s.backend.Device(), "cpu") {
		out = append(out, "No GPU is used: pages are compressed on the CPU.")
	}
	if s.requests != nil && s.requests.held != nil {
		if why := s.requests.held(); why != "" {
			out = append(out, "The canary holds compression back: "+why)
		}
	}
	return out
}

// studioAPI is the studio as the admin API asks it.
type studioAPI struct {
	*studio.Studio
	chars int // of an own text; 0: none is taken
}

var _ proxy.Studio = studioAPI{}

// studioMethod is a method that can be tried.
type studioMethod struct {
	Method   string   `json:"method"`
	Clusters bool     `json:"clusters"`
	Evicts   bool     `json:"evicts"`
	Ignores  []string `json:"ignores"`
}

// About lists the pages and the methods that there are.
func (a studioAPI) About() any {
	var methods []studioMethod
	for _, m := range policy.Methods() {
		methods = append(methods, studioMethod{string(m), m.Clusters(), m.Evicts(), m.Ignores()})
	}
	return struct {
		Sources  []studio.Source `json:"sources"`
		Methods  []studioMethod  `json:"methods"`
		Budgets  []policy.Budget `json:"budgets"`
		Text     bool            `json:"text"` // own texts are taken
		MaxChars int             `json:"maxChars"`
	}{a.Sources(), methods, policy.Budgets(), a.chars > 0, a.chars}
}

// Tokens implements proxy.Studio.
func (a studioAPI) Tokens(source string) (any, error) { return a.Studio.Tokens(source) }

// AddText implements proxy.Studio.
func (a studioAPI) AddText(ctx context.Context, body []byte) (any, error) {
	var r struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, badBody{err}
	}
	return a.Studio.AddText(ctx, r.Text)
}

// Run implements proxy.Studio.
func (a studioAPI) Run(ctx context.Context, body []byte) (any, error) {
	var r studio.Request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, badBody{err}
	}
	return a.Studio.Run(ctx, r)
}

// Curve implements proxy.Studio.
func (a studioAPI) Curve(ctx context.Context, body []byte) (any, error) {
	var r studio.CurveRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, badBody{err}
	}
	return a.Studio.Curve(ctx, r)
}

type badBody struct{ error }

// Code is stable.
func (badBody) Code() string { return codes.AdminBadBody }
