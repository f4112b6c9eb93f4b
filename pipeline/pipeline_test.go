package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// rules is a policy with one tenant per behaviour.
const rules = `
apiVersion: semproxy.io/v1
profiles:
  half:     { method: semantic, ratio: 0.5, assign: true }
  quarter:  { method: semantic, ratio: 0.25, budget: equal }
  relaxes:  { method: semantic, ratio: 0.125, guard: { maxAttentionError: 0.25, onViolation: relax } }
  strict:   { method: semantic, ratio: 0.125, guard: { maxAttentionError: 0.001, onViolation: relax } }
  passes:   { method: semantic, ratio: 0.125, guard: { maxAttentionError: 0.25, onViolation: pass } }
  reports:  { method: semantic, ratio: 0.125, guard: { maxAttentionError: 0.25, onViolation: report } }
  holds:    { method: semantic, ratio: 0.5, guard: { maxAttentionError: 0.9, onViolation: relax } }
  judged:   { method: semantic, ratio: 0.5, guard: { maxFactsLost: 0.05, onViolation: pass } }
  ownjudge: { method: semantic, ratio: 0.5, guard: { maxFactsLost: 0.05, onViolation: pass, lossCurve: [[0, 0], [0.96, 0.048], [1, 1]] } }
  similar:  { method: semantic, threshold: 0.9 }
  paper:    { method: paper, ratio: 0.5 }
  weighted: { method: weighted, ratio: 0.25 }
  layered:  { method: weighted, ratio: 0.25, budget: layered }
  wpasses:  { method: weighted, ratio: 0.125, guard: { maxAttentionError: 0.001, onViolation: pass }, headWeights: [[1, 1], [1, 1], [1, 1], [4, 1], [1, 1]] }
  heads:    { method: weighted, ratio: 0.25, headWeights: [[1, 1], [1, 1], [1, 1], [4, 1], [1, 1]] }
  alien:    { method: weighted, ratio: 0.25, headWeights: [[1, 2, 1, 1]] }
  regular:  { method: weighted, ratio: 0.25, budget: equal }
tenants:
  half:    { rules: [ { profile: half } ] }
  twin:    { rules: [ { profile: half } ] }
  quarter: { rules: [ { profile: quarter } ] }
  relaxes: { rules: [ { profile: relaxes } ] }
  strict:  { rules: [ { profile: strict } ] }
  passes:  { rules: [ { profile: passes } ] }
  reports: { rules: [ { profile: reports } ] }
  holds:   { rules: [ { profile: holds } ] }
  judged:  { rules: [ { profile: judged } ] }
  ownjudge: { rules: [ { profile: ownjudge } ] }
  similar: { rules: [ { profile: similar } ] }
  paper:   { rules: [ { profile: paper } ] }
  weighted: { rules: [ { profile: weighted } ] }
  layered:  { rules: [ { profile: layered } ] }
  wpasses:  { rules: [ { profile: wpasses } ] }
  heads:    { rules: [ { profile: heads } ] }
  alien:    { rules: [ { profile: alien } ] }
  regular:  { rules: [ { profile: regular } ] }
  exact:   { rules: [ { profile: exact } ] }
  tight:   { limits: { storedBytes: 10KiB }, rules: [ { profile: half } ] }
`

type rig struct {
	*pipeline.Pipeline
	spans *tracetest.SpanRecorder
	store pipeline.Store
	tp    *sdktrace.TracerProvider
}

func newRig(t testing.TB, change func(*pipeline.Config)) *rig {
	t.Helper()
	return newRigOf(t, rules, change)
}

func newRigOf(t testing.TB, rules string, change func(*pipeline.Config)) *rig {
	t.Helper()
	set, err := policy.Compile(policy.Source{Name: "test.yaml", Data: []byte(rules)})
	if err != nil {
		t.Fatal(err)
	}
	files, err := store.OpenMemory(store.FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := compress.New(2)
	r := &rig{spans: tracetest.NewSpanRecorder(), store: files}
	r.tp = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))
	cfg := pipeline.Config{Policy: func() *policy.Set { return set }, Compressor: c, Store: files, Tracer: r.tp}
	if change != nil {
		change(&cfg)
		r.store = cfg.Store
	}
	if r.Pipeline, err = pipeline.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func demoPage(t testing.TB, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(configs.Demo(), name+".page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func send(t testing.TB, r *rig, tenant string, blob []byte) (pipeline.Report, *page.Cores) {
	t.Helper()
	out, err := r.Compress(context.Background(), tenant, blob)
	if err != nil {
		t.Fatalf("%s: %v", tenant, err)
	}
	body := slices.Clone(out.Body)
	out.Release()
	cores, err := page.DecodeCores(body, page.DefaultLimits())
	if err != nil {
		t.Fatalf("%s: the reply does not decode: %v", tenant, err)
	}
	return out.Report, cores
}

func TestEveryPageKeepsEveryToken(t *testing.T) {
	r := newRig(t, nil)
	for _, name := range configs.Pages() {
		blob := demoPage(t, name)
		in, err := page.Decode(blob, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		for _, tenant := range []string{"half", "quarter", "similar", "paper", "weighted", "layered", "heads", "regular", "exact", "relaxes", "passes"} {
			t.Run(name+"/"+tenant, func(t *testing.T) {
				rep, cores := send(t, r, tenant, blob)
				if err := cores.CheckCounts(); err != nil {
					t.Error(err)
				}
				if cores.Tokens != in.Tokens || cores.Sequence != in.Sequence || cores.Model != in.Model || cores.DType != in.DType {
					t.Errorf("the reply is about %d tokens of %s/%s in %s, want %d of %s/%s in %s", cores.Tokens, cores.Model, cores.Sequence,
						cores.DType, in.Tokens, in.Model, in.Sequence, in.DType)
				}
				if rep.Rule != "tenants."+tenant+".rules[0]" || cores.Rule != rep.Rule || cores.PolicyDigest == "" {
					t.Errorf("rule %q in the report, %q in the reply", rep.Rule, cores.Rule)
				}
				if got := rep.Ratio; math.Abs(got-cores.Ratio) > 1e-5 || got <= 0 || got > 1 {
					t.Errorf("ratio %v in the report, %v in the reply", got, cores.Ratio)
				}
			})
		}
	}
}

func TestRatioIsHeld(t *testing.T) {
	r := newRig(t, nil)
	for tenant, want := range map[string]float64{"half": 0.5, "quarter": 0.25, "paper": 0.5, "weighted": 0.25, "layered": 0.25, "heads": 0.25, "regular": 0.25} {
		for _, name := range configs.Pages() {
			rep, _ := send(t, r, tenant, demoPage(t, name))
			if rep.Ratio > want || rep.Ratio < want-0.01 {
				t.Errorf("%s on %s keeps %.4f, want at most %v and within 0.01 of it", tenant, name, rep.Ratio, want)
			}
			if rep.Asked != want {
				t.Errorf("%s asked for %v, want %v", tenant, rep.Asked, want)
			}
		}
	}
}

func TestExactGivesThePageBack(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv")
	in, _ := page.Decode(blob, page.DefaultLimits())
	rep, cores := send(t, r, "exact", blob)
	if rep.Outcome != semconv.OutcomeExact || string(cores.K) != string(in.K) || string(cores.V) != string(in.V) {
		t.Fatalf("outcome %q, K equal %v, V equal %v", rep.Outcome, string(cores.K) == string(in.K), string(cores.V) == string(in.V))
	}
	if rep.Object != "" {
		t.Errorf("an exact page was stored as %s", rep.Object)
	}
}

func TestSamePageAgainComesFromTheStoreUnderTheNewIDs(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv")
	first, cores := send(t, r, "half", blob)
	p, _ := page.Decode(blob, page.DefaultLimits())
	p.Sequence = "another request"
	renamed, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, again := send(t, r, "half", renamed)
	if second.Outcome != semconv.OutcomeStored || second.Object != first.Object || again.Sequence != "another request" {
		t.Errorf("outcome %q, object %s, sequence %q; want stored, %s and the new sequence", second.Outcome, second.Object, again.Sequence, first.Object)
	}
	if string(again.K) != string(cores.K) || string(again.Counts) != string(cores.Counts) {
		t.Error("the stored cores differ from the first reply's")
	}
	if second.AttentionError == 0 || math.Abs(second.AttentionError-first.AttentionError) > 1e-5 {
		t.Errorf("attention error %v from the store, want %v", second.AttentionError, first.AttentionError)
	}
}

func TestObjectsAreApartByTenantAndPolicy(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv")
	seen := map[string]string{}
	for _, tenant := range []string{"half", "twin", "quarter", "paper", "similar"} {
		rep, _ := send(t, r, tenant, blob)
		if other, dup := seen[rep.Object]; dup {
			t.Errorf("%s and %s share the object %s", tenant, other, rep.Object)
		}
		seen[rep.Object] = tenant
		if _, err := r.Get(context.Background(), tenant, rep.Object); err != nil {
			t.Errorf("%s cannot get its object: %v", tenant, err)
		}
		if _, err := r.Get(context.Background(), "exact", rep.Object); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("another tenant asks for the object of %s: %v, want not found", tenant, err)
		}
	}
}

func TestOneTraceTellsTheLifeOfAPage(t *testing.T) {
	r := newRig(t, nil)
	ctx, root := r.tp.Tracer("test").Start(context.Background(), "root")
	out, err := r.Compress(ctx, "half", demoPage(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	cores, _ := page.DecodeCores(out.Body, page.DefaultLimits())
	parent := cores.TraceParent
	out.Release()
	root.End()
	var names []string
	for _, s := range r.spans.Ended() {
		names = append(names, s.Name())
		if s.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("span %s is in another trace", s.Name())
		}
		if s.Name() != semconv.SpanCompress {
			continue
		}
		got := map[attribute.Key]string{}
		for _, a := range s.Attributes() {
			got[a.Key] = a.Value.String()
		}
		for _, k := range []attribute.Key{semconv.Tenant, semconv.Rule, semconv.Ratio, semconv.AttentionError, semconv.KeySimilarity, semconv.Device} {
			if got[k] == "" {
				t.Errorf("span %s lacks %s", s.Name(), k)
			}
		}
	}
	if want := []string{semconv.SpanDecide, semconv.SpanCompress, semconv.SpanStore, "root"}; !slices.Equal(names, want) {
		t.Errorf("spans %v, want %v", names, want)
	}
	if !strings.Contains(parent, root.SpanContext().TraceID().String()) {
		t.Errorf("the reply's traceparent %q is not of trace %s", parent, root.SpanContext().TraceID())
	}
}

func TestBadInputIsRefusedWithACodeAndTheNextPageIsServed(t *testing.T) {
	r := newRig(t, nil)
	good := demoPage(t, "kjv")
	edit := func(f func(p *page.Page)) []byte {
		p, _ := page.Decode(good, page.DefaultLimits())
		f(p)
		b, err := p.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name, tenant, code string
		blob               []byte
	}{
		{"truncated", "half", "page.truncated", good[:len(good)/2]},
		{"nothing", "half", "page.truncated", nil},
		{"unknown tenant", "nobody", "policy.denied", good},
		{"rope that depends on the length", "half", "page.bad_rope", edit(func(p *page.Page) { p.Rope.Type, p.Rope.Factor = "dynamic", 2 })},
		{"object over the tenant's storage", "tight", "store.too_large", good},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := r.Compress(context.Background(), c.tenant, c.blob)
			if got := pipeline.CodeOf(err); err == nil || got != c.code {
				t.Errorf("code %q (%v), want %q", got, err, c.code)
			}
			send(t, r, "half", good)
		})
	}
}

func TestLayoutThatTheModelDoesNotHaveIsRefused(t *testing.T) {
	r := newRig(t, func(c *pipeline.Config) { c.Models = model{layout: "vllm.0.30.NHD"} })
	_, err := r.Compress(context.Background(), "half", demoPage(t, "kjv"))
	if got := pipeline.CodeOf(err); got != "page.layout" {
		t.Errorf("code %q (%v), want page.layout", got, err)
	}
}

func TestDelimitersComeFromThePageThenTheTokenizer(t *testing.T) {
	blob := demoPage(t, "kjv")
	p, _ := page.Decode(blob, page.DefaultLimits())
	marks := p.Boundary
	p.Boundary = nil
	bare, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	with := newRig(t, func(c *pipeline.Config) { c.Models = model{marks: marks} })
	without := newRig(t, nil)
	a, own := send(t, with, "half", blob)
	b, tokenizer := send(t, with, "half", bare)
	c, none := send(t, without, "half", bare)
	if a.Boundary != semconv.BoundaryPage || b.Boundary != semconv.BoundaryTokenizer || c.Boundary != semconv.BoundaryNone {
		t.Errorf("boundary sources %q, %q, %q", a.Boundary, b.Boundary, c.Boundary)
	}
	if string(own.Counts) != string(tokenizer.Counts) {
		t.Error("the same marks gave other cores")
	}
	if string(own.Counts) == string(none.Counts) {
		t.Error("no marks gave the same cores: the marks were not used")
	}
}

// model is a configuration with one answer.
type model struct {
	layout string
	marks  []byte
	texts  func(id int64) (string, bool)
	err    error
}

func (m model) Layout(string) string { return m.layout }
func (m model) Text(string) (text func(id int64) (string, bool), ok bool, err error) {
	return m.texts, m.texts != nil, m.err
}
func (m model) Boundary(_ string, dst []byte, _ int, _ func(int) int64) (bool, error) {
	return copy(dst, m.marks) > 0, nil
}

func TestStoreAwayIsRetryable(t *testing.T) {
	r := newRig(t, func(c *pipeline.Config) { c.Store = away{c.Store} })
	_, err := r.Compress(context.Background(), "half", demoPage(t, "kjv"))
	if got := pipeline.CodeOf(err); got != "store.unavailable" {
		t.Errorf("code %q (%v), want store.unavailable", got, err)
	}
}

// away is a store whose disk is gone.
type away struct{ pipeline.Store }

func (away) Put(context.Context, store.Key, []byte, store.PutOptions) error {
	return fmt.Errorf("put: %w", store.ErrUnavailable)
}

func TestConcurrentPagesDoNotMix(t *testing.T) {
	r := newRig(t, nil)
	want := map[string]string{}
	for _, name := range configs.Pages() {
		for _, tenant := range []string{"half", "quarter", "paper"} {
			_, cores := send(t, newRig(t, nil), tenant, demoPage(t, name))
			want[name+tenant] = string(cores.K)
		}
	}
	done := make(chan error)
	n := 0
	for key := range want {
		for range 4 {
			n++
			go func() {
				name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(key, "half"), "quarter"), "paper")
				out, err := r.Compress(context.Background(), strings.TrimPrefix(key, name), demoPage(t, name))
				if err != nil {
					done <- err
					return
				}
				defer out.Release()
				cores, err := page.DecodeCores(out.Body, page.DefaultLimits())
				if err == nil && string(cores.K) != want[key] {
					err = fmt.Errorf("%s: other cores than when sent alone", key)
				}
				done <- err
			}()
		}
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
