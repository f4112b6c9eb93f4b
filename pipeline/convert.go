package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/defaults"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// describe notes what the page says of itself.
func (j *job) describe() {
	p, r := j.page, &j.report
	r.Model, r.Sequence, r.Layers, r.Heads, r.Tokens = p.Model, p.Sequence, p.Layers, p.KVHeads, p.Tokens
}

var dtypes = map[page.DType]compress.DType{
	page.BF16: compress.BF16, page.F16: compress.F16, page.F32: compress.F32,
	page.F8E4M3: compress.F8E4M3, page.F8E5M2: compress.F8E5M2,
}

// wire is an element type of the compressor as pages name it.
func wire(d compress.DType) page.DType {
	for p, c := range dtypes {
		if c == d {
			return p
		}
	}
	return 0
}

// prepare turns the page into the compressor's input: the same K and V, nothing copied but the small integers.
func (j *job) prepare(models Model, messages [][2]int, d *policy.Decision) error {
	p := j.page
	if models != nil {
		if err := p.CheckLayout(models.Layout(p.Model)); err != nil {
			return err
		}
	}
	j.shape()
	if err := j.protect(models, messages, d); err != nil {
		return err
	}
	return j.delimit(models, d)
}

// shape makes the compressor's input of the page, but for what the policy and the model say.
func (j *job) shape() {
	p := j.page
	j.positions = grow(j.positions, p.Tokens)
	for i := range j.positions {
		j.positions[i] = int32(p.Positions.At(i))
	}
	j.in = compress.Input{
		DType: dtypes[p.DType], Layers: p.Layers, Heads: p.KVHeads, Tokens: p.Tokens, Dim: p.HeadDim,
		K: p.K, V: p.V, Positions: j.positions, Protect: p.Protect, Rope: rope(p.Rope),
		Before: p.TokenFirst, Behind: p.TokensTotal - p.TokenFirst - p.Tokens,
		Q: p.Q, QDType: dtypes[p.QDType], QHeads: p.QHeads, QWindow: p.Window,
	}
	if n := p.QPositions.Len(); n > 0 {
		j.asked = grow(j.asked, n)
		for i := range j.asked {
			j.asked[i] = int32(p.QPositions.At(i))
		}
		j.in.QPositions = j.asked
	}
	if p.Importance != nil {
		j.important = grow(j.important, len(p.Importance)/4)
		floats(j.important, p.Importance)
		j.in.Importance = j.important
	}
	if p.DType.IsF8() {
		n := p.Layers * p.KVHeads
		j.scales = grow(j.scales, 2*n)
		j.in.KScale, j.in.VScale = j.scales[:n], j.scales[n:]
		floats(j.in.KScale, p.KScale)
		floats(j.in.VScale, p.VScale)
	}
}

// delimit finds the page's delimiters: its own marks, else those of the model's tokenizer, else none.
func (j *job) delimit(models Model, d *policy.Decision) error {
	p := j.page
	j.report.Boundary = semconv.BoundaryNone
	switch {
	case p.Boundary != nil:
		j.in.Boundary, j.report.Boundary = p.Boundary, semconv.BoundaryPage
	case models != nil && d.Plan.Method != policy.MethodNone:
		j.boundary = grow(j.boundary, p.Tokens)
		ok, err := models.Boundary(p.Model, j.boundary, p.Tokens, p.TokenIDs.At)
		if err != nil {
			return err
		}
		if ok {
			j.in.Boundary, j.report.Boundary = j.boundary, semconv.BoundaryTokenizer
		}
	}
	return nil
}

func rope(r page.Rope) compress.Rope {
	return compress.Rope{Type: r.Type, Theta: r.Theta, Dim: r.RotaryDim, Interleaved: r.Interleaved, Factor: r.Factor,
		LowFreq: r.LowFreqFactor, HighFreq: r.HighFreqFactor, OriginalMaxTok: r.OriginalMaxPosition,
		BetaFast: r.BetaFast, BetaSlow: r.BetaSlow}
}

// terms are all that decides about a page's cores beside the page: the policy, how this program understands it, what it knows of the
// model's heads, and what the guard does. Stored objects and marks of prefixes are found under the same terms only.
func terms(d *policy.Decision, model string) string {
	o := options(&d.Plan, false, 0) // whether keys are folded is the page's wish, and in its digest
	out := fmt.Sprintf("%s %s relax %v %d codes %d", d.PolicyDigest, o.Identity(), relaxBy, relaxSteps, page.CodesVersion)
	if knowsHeads(&d.Plan) {
		out += defaults.HeadsVersion(model, d.Plan.Ratio)
	}
	return out
}

// object is the key of the page's cores: a digest of the tenant, the content, the terms, the delimiters and, where the
// policy protects texts or messages, their tokens. An earlier policy's cores are never served for this one, nor
// another tenant's, nor those of another tokenizer.
func (j *job) object(d *policy.Decision) string {
	h := sha256.New()
	content := j.page.Digest()
	boundary := sha256.Sum256(j.in.Boundary)
	parts := [][]byte{[]byte("semproxy.object.2"), []byte(j.tenant), content[:], []byte(terms(d, j.page.Model)), boundary[:]}
	if len(d.Plan.Protect.Patterns) > 0 || len(d.Plan.Protect.Roles) > 0 {
		protect := sha256.Sum256(j.in.Protect)
		parts = append(parts, protect[:])
	}
	for _, part := range parts {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// encode writes the reply.
func (j *job) encode(ctx context.Context, d *policy.Decision, device string) (err error) {
	c := j.cores()
	c.Policy, c.PolicyDigest, c.Rule, c.Engine = d.Profile, d.PolicyDigest, d.Rule, device
	c.Ratio, c.Fidelity = j.report.Ratio, j.report.fidelity()
	if d.Plan.Assign {
		j.tensors.assign = appendInts(j.tensors.assign[:0], j.res.Assign)
		c.Assign = j.tensors.assign
	}
	if j.report.Dropped > 0 {
		j.tensors.dropped = appendInts(j.tensors.dropped[:0], j.res.Dropped)
		c.Dropped = j.tensors.dropped
	}
	if j.isCoded {
		c.Coded = &j.codes
	}
	return j.write(ctx, &c)
}

// cores are the result's tensors: packed where padding would cost more than a sixteenth. They are j's memory.
func (j *job) cores() page.Cores {
	p, res := j.page, &j.res
	t := &j.tensors
	c := page.Cores{
		Layout: p.Layout, Tokens: p.Tokens, DType: wire(res.DType), Layers: p.Layers, KVHeads: p.KVHeads, Cores: res.Cores, HeadDim: p.HeadDim,
		K: res.K, V: res.V, Folded: p.Folded,
	}
	if wasteful(res) {
		pack(t, res)
		c.Slots, c.K, c.V = t.slots, t.k, t.v
	} else {
		pad(t, res)
	}
	c.Counts, c.Bias, c.Positions = t.counts, t.bias, t.positions
	if res.DType.FP8() {
		t.kScale, t.vScale = appendFloats(t.kScale[:0], res.KScale), appendFloats(t.vScale[:0], res.VScale)
		c.KScale, c.VScale = t.kScale, t.vScale
	}
	return c
}

// write gives the cores this request's ids and appends them to the reply.
func (j *job) write(ctx context.Context, c *page.Cores) (err error) {
	p := j.page
	c.Model, c.Sequence, c.LayerFirst, c.TokenFirst = p.Model, p.Sequence, p.LayerFirst, p.TokenFirst
	c.TokensTotal, c.Page, c.Pages, c.TraceParent = p.TokensTotal, p.Page, p.Pages, traceParent(ctx)
	j.reply, err = c.Append(j.reply[:0])
	j.report.BytesOut = len(j.reply)
	return err
}

// again replies with the cores of an earlier request.
func (j *job) again(ctx context.Context, c *page.Cores, key store.Key) error {
	r := &j.report
	r.Outcome, r.Object, r.Ratio, r.Device = semconv.OutcomeStored, key.Object, c.Ratio, c.Engine
	r.Cores = int(c.Ratio*float64(r.Tokens) + 0.5)
	r.Dropped = 0
	for at := 0; at < len(c.Dropped); at += 4 {
		r.Dropped += float64(binary.LittleEndian.Uint32(c.Dropped[at:])) / float64(len(c.Dropped)/4)
	}
	r.Guard = c.Fidelity["guard"]
	r.KeySimilarity, r.ValueError = parse(c.Fidelity["key_similarity"]), parse(c.Fidelity["value_error"])
	if e, ok := c.Fidelity["attention_error"]; ok {
		r.Measured, r.AttentionError = true, parse(e)
		r.LookupError, r.FactsLost = parse(c.Fidelity["lookup_error"]), parse(c.Fidelity["facts_lost"])
		r.WorstError, r.WorstHead = parse(c.Fidelity["attention_worst"]), c.Fidelity["attention_worst_head"]
	}
	return j.write(ctx, c)
}

func floats(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func traceParent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

func grow[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return make([]T, n)
}
