package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// Compressor merges the tokens of a page and measures what that did to attention. *compress.Compressor is one.
type Compressor interface {
	Compress(ctx context.Context, in *compress.Input, opt *compress.Options, out *compress.Result) error
	Attend(ctx context.Context, in *compress.Input, res *compress.Result, out *compress.Attention) error
	Device() string
}

// Measurer is a Compressor that measures a page while it has it, so that the page is not read again, and says where it worked
// on this one.
type Measurer interface {
	// Measure compresses and, where full and got are not nil, computes the outputs of probe's queries over the originals and over
	// the cores. probe is the same page with other queries.
	Measure(ctx context.Context, in, probe *compress.Input, opt *compress.Options, out *compress.Result, full, got *compress.Attention) (device string, err error)
}

// Store keeps compressed objects. Put returns after the commit; Get's bytes are shared and must not be written to.
type Store interface {
	Put(ctx context.Context, key store.Key, blob []byte, opt store.PutOptions) error
	Get(ctx context.Context, key store.Key) ([]byte, error)
	Stat(ctx context.Context, key store.Key) (store.Info, error)
	Usage(ctx context.Context, tenant string) (objects int, bytes int64, err error)
}

// Model is what the configuration knows of a model.
type Model interface {
	// Boundary fills dst, [n], with non-zero where token at(i) contains a delimiter; false when the model's tokenizer is
	// not configured.
	Boundary(model string, dst []byte, n int, at func(i int) int64) (bool, error)
	// Text gives the text of every token id, false for an id that there is none for; ok is false when the model's tokenizer
	// is not configured. It is asked once per page, and only where a policy protects texts.
	Text(model string) (text func(id int64) (string, bool), ok bool, err error)
	// Layout is the layout that the model's pages must have; empty accepts any.
	Layout(model string) string
}

// Config is what a pipeline works with. Store, Prefixes, Claims, Models, Tracer, Meter and Logger may be nil.
type Config struct {
	Policy     func() *policy.Set // the rules in force; asked once per page
	Compressor Compressor
	Store      Store
	Prefixes   Prefixes // nil: nothing is found by its prefix
	Claims     Claims   // nil: only makers in this process know of each other
	Models     Model
	Limits     page.Limits
	Tracer     trace.TracerProvider
	Meter      metric.MeterProvider
	Logger     *slog.Logger
	Progress   func(done, total int)
	// Headers are those of the request that a sequence of a tenant belongs to, for rules that look at them; nil: none are known,
	// and what the page says of them counts.
	Headers func(tenant, sequence string) map[string]string
	// Messages are the positions, ranges [from, to), of those messages of a sequence that its policy protects; false: they are
	// not known here. nil: none are known. A page whose messages are not known and that marks nothing itself stays exact.
	Messages func(tenant, sequence string) ([][2]int, bool)
	// Observer is told of every page when it is done; the report is only valid during the call, which holds the page up.
	Observer func(ctx context.Context, r *Report, err error)
}

// Pipeline takes pages through. It is safe for concurrent use.
type Pipeline struct {
	cfg      Config
	tracer   trace.Tracer
	metrics  *instruments
	scratch  sync.Pool
	usual    compress.Usual
	inFlight inFlight
}

// New prepares a pipeline. It owns none of what the configuration names.
func New(cfg Config) (*Pipeline, error) {
	if cfg.Policy == nil || cfg.Compressor == nil {
		return nil, errors.New("pipeline: a policy and a compressor are required")
	}
	cfg = cfg.withDefaults()
	m, err := newInstruments(cfg.Meter)
	if err != nil {
		return nil, err
	}
	if rules := cfg.Policy(); rules != nil {
		m.atZero(context.Background(), rules.Tenants())
	}
	p := &Pipeline{cfg: cfg, tracer: cfg.Tracer.Tracer(scope), metrics: m}
	p.scratch.New = func() any { return new(job) }
	return p, nil
}

// job is one page in flight, with the memory that it reuses.
type job struct {
	tenant string
	rules  *policy.Set
	page   *page.Page
	blob   []byte
	in     compress.Input
	opt    compress.Options
	report Report

	need, held    int64   // bytes of memory that this page needs, and that any has needed
	work, another float64 // multiply-adds that are left for the page, and of one more attempt

	span    page.Span // in the chain of the sequence's links
	located bool      // span says something

	positions []int32
	asked     []int32 // positions of the page's queries
	important []float32
	boundary  []byte
	scales    []float32
	weights   []float64
	layers    []LayerReport
	mask      []byte // the page's protected tokens and the policy's
	starts    []int  // of the tokens' texts
	res       compress.Result
	full, got compress.Attention
	fidelity  compress.Fidelity
	probes    compress.Probes
	probe     compress.Input // j.in with the queries that measure; without any where the page has none
	tensors   tensors
	reply     []byte

	codes       page.Coded // of the cores, when isCoded
	isCoded     bool
	frequencies []float32
}

// Compress takes one page through its life and returns the reply. The caller calls the outcome's Release when it has
// sent the body. Errors have a stable Code; nothing was stored or changed when there is one.
func (p *Pipeline) Compress(ctx context.Context, tenant string, blob []byte) (*Outcome, error) {
	start := time.Now()
	j := p.scratch.Get().(*job)
	j.tenant, j.blob, j.report, j.rules = tenant, blob, Report{Tenant: tenant, BytesIn: len(blob)}, p.cfg.Policy()
	j.need = 0
	err := p.live(ctx, j)
	j.report.Elapsed = time.Since(start)
	p.observe(ctx, j, err)
	if p.cfg.Observer != nil {
		p.cfg.Observer(ctx, &j.report, err)
	}
	if err != nil {
		p.release(j)
		return nil, err
	}
	return &Outcome{Report: j.report, Body: j.reply, Release: func() { p.release(j) }}, nil
}

func (p *Pipeline) release(j *job) {
	j.page, j.blob, j.in, j.rules = nil, nil, compress.Input{}, nil
	j.held = max(j.held, j.need)
	if p.usual.Keep(j.need, j.held) {
		p.scratch.Put(j)
	}
}

// live is the life of a page.
func (p *Pipeline) live(ctx context.Context, j *job) (err error) {
	// 1. The blob becomes a page: views into it, every length checked.
	if j.page, err = page.Decode(j.blob, p.cfg.Limits); err != nil {
		return err
	}
	j.describe()
	if err := p.locate(j); err != nil {
		return err
	}

	// 2. The tenant's policy decides, and names the rule that did.
	decision, err := p.decide(ctx, j)
	if err != nil {
		return err
	}
	messages := p.messages(j, &decision)
	if err := j.prepare(p.cfg.Models, messages, &decision); err != nil {
		return err
	}
	if err := j.afford(&decision.Plan); err != nil {
		return err
	}

	// 3. The same page under the same policy is already there: a retry, or another sequence with the same prompt.
	key := store.Key{Tenant: j.tenant, Object: j.object(&decision)}
	if found, err := p.stored(ctx, j, key, &decision); err != nil || found {
		return err
	}
	//    Of several that would make it at the same time, one does and the others wait for it, for a while.
	done, found, err := p.claim(ctx, j, key, &decision)
	if err != nil || found {
		return err
	}
	defer done()

	// 4. Compress, measure the loss, and relax while the guard says that it is too much.
	if err := p.compress(ctx, j, &decision); err != nil {
		return err
	}

	// 5. The cores become a blob again, with the metadata for proportional attention.
	if err := j.encode(ctx, &decision, j.report.Device); err != nil {
		return err
	}

	// 6. Commit, and only then reply. An exact page is not kept: its sender has it.
	if j.report.Outcome == semconv.OutcomeExact {
		return nil
	}
	return p.store(ctx, j, key, &decision)
}

// decide asks the policy.
func (p *Pipeline) decide(ctx context.Context, j *job) (policy.Decision, error) {
	_, span := p.tracer.Start(ctx, semconv.SpanDecide)
	defer span.End()
	start := time.Now()
	carried, err := j.page.Headers()
	if err != nil {
		return policy.Decision{}, failed(span, err)
	}
	d, err := j.rules.Decide(p.request(j.rules, j.tenant, j.page.Sequence, j.page.Model, j.page.TokensTotal, carried))
	j.report.Stages.Decide = time.Since(start)
	if err != nil {
		return d, failed(span, err)
	}
	j.report.Policy, j.report.PolicyDigest, j.report.Rule = d.Profile, d.PolicyDigest, d.Rule
	j.report.RuleSource, j.report.Reason, j.report.Decision = d.Source, d.Reason, d
	span.SetAttributes(semconv.Tenant.String(j.tenant), semconv.Policy.String(d.Profile), semconv.PolicyDigest.String(d.PolicyDigest),
		semconv.Rule.String(d.Rule), semconv.Method.String(string(d.Plan.Method)))
	return d, nil
}

// messages are the tokens that stay exact because of whose messages they are in. Where that is to be heeded and is not known,
// d keeps all tokens.
func (p *Pipeline) messages(j *job, d *policy.Decision) [][2]int {
	if len(d.Plan.Protect.Roles) == 0 || d.Plan.Method == policy.MethodNone {
		return nil
	}
	if p.cfg.Messages != nil {
		if found, known := p.cfg.Messages(j.tenant, j.page.Sequence); known {
			return found
		}
	}
	if j.page.Protect == nil {
		d.Plan.Method, d.Plan.Bits = policy.MethodNone, 0
		d.Reason = "profile " + d.Profile + " protects messages, and which tokens they are is not known here"
		j.report.Reason = d.Reason
	}
	return nil
}

// compress fills j.res.
func (p *Pipeline) compress(ctx context.Context, j *job, d *policy.Decision) error {
	ctx, span := p.tracer.Start(ctx, semconv.SpanCompress)
	defer span.End()
	start := time.Now()
	err := p.guarded(ctx, j, d)
	j.report.Stages.Compress = time.Since(start)
	if err != nil {
		return failed(span, err)
	}
	span.SetAttributes(j.report.attributes()...)
	return nil
}

// store commits the reply's blob.
func (p *Pipeline) store(ctx context.Context, j *job, key store.Key, d *policy.Decision) error {
	if p.cfg.Store == nil {
		return nil
	}
	ctx, span := p.tracer.Start(ctx, semconv.SpanStore)
	defer span.End()
	start := time.Now()
	err := p.cfg.Store.Put(ctx, key, j.reply, store.PutOptions{
		TTL:   time.Duration(d.Plan.Store.TTL),
		Quota: int64(j.rules.Limits(j.tenant).StoredBytes),
	})
	j.report.Stages.Store = time.Since(start)
	if err != nil {
		return failed(span, err)
	}
	j.report.Object = key.Object
	p.mark(ctx, j, key, d)
	span.SetAttributes(semconv.Object.String(key.Object), semconv.BytesOut.Int(len(j.reply)))
	return nil
}

// stored replies with the object of an earlier request, under this request's ids. A store that fails to read only costs
// the work again.
func (p *Pipeline) stored(ctx context.Context, j *job, key store.Key, d *policy.Decision) (bool, error) {
	if p.cfg.Store == nil || d.Plan.Untouched() { // exact pages are not kept
		return false, nil
	}
	blob, err := p.cfg.Store.Get(ctx, key)
	if err != nil {
		return false, ctx.Err()
	}
	cores, err := page.DecodeCores(blob, p.cfg.Limits)
	if err != nil {
		p.cfg.Logger.WarnContext(ctx, "stored_object_unreadable", "tenant", j.tenant, "object", key.Object, "error", err)
		return false, nil
	}
	p.mark(ctx, j, key, d) // once more: whoever stored it may have died before that
	return true, j.again(ctx, cores, key)
}

// Get returns a stored object by its key, hexadecimal, as its tenant got it.
func (p *Pipeline) Get(ctx context.Context, tenant, object string) ([]byte, error) {
	if _, ok := p.cfg.Policy().Resolve(tenant); !ok {
		return nil, &policy.DeniedError{Tenant: tenant}
	}
	if b, err := hex.DecodeString(object); err != nil || len(b) != 32 {
		return nil, store.ErrBadKey
	}
	if p.cfg.Store == nil {
		return nil, store.ErrNotFound
	}
	return p.cfg.Store.Get(ctx, store.Key{Tenant: tenant, Object: object})
}

func failed(span trace.Span, err error) error {
	span.SetStatus(codes.Error, CodeOf(err))
	span.SetAttributes(attribute.String(string(semconv.ErrorCode), CodeOf(err)))
	return err
}
