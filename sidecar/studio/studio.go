package studio

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/transport/page"
)

// Options of a studio. The zero value of each field is useful.
type Options struct {
	Workers int            // goroutines of the compressor; 0: one per core
	Models  pipeline.Model // what is known of models' tokenizers; nil: nothing
	// Text runs a model on a text and gives its page, as a blob, and what its tokens say. nil: own texts are not taken.
	Text func(ctx context.Context, text string) (blob []byte, words []string, err error)
	// Words gives the texts of token ids of a model; false: its tokenizer is not known.
	Words func(model string) (func(id int64) (string, bool), bool)
}

// Studio tries policies on pages, one at a time. It is safe for concurrent use.
type Studio struct {
	opt  Options
	comp *compress.Compressor
	busy chan struct{} // one page at a time: what is tried must not take the machine from what is served

	mu    sync.Mutex
	texts []*Source
	kept  keep
}

// New makes a studio. Close ends it.
func New(opt Options) *Studio {
	return &Studio{opt: opt, comp: compress.New(opt.Workers), busy: make(chan struct{}, 1)}
}

// Close stops the workers. No call may be running or follow.
func (s *Studio) Close() { s.comp.Close() }

// Error has a stable code and a sentence for a person.
type Error struct {
	code, text string
	Problems   []string // of a profile
}

// Code is stable.
func (e *Error) Code() string  { return e.code }
func (e *Error) Error() string { return e.text }

func failure(code, format string, args ...any) *Error {
	return &Error{code: code, text: fmt.Sprintf(format, args...)}
}

// Request asks for one page under one profile.
type Request struct {
	Source  string          `json:"source"`
	Profile json.RawMessage `json:"profile"` // as in a policy file
}

// Result is what a profile makes of a page.
type Result struct {
	Source    string  `json:"source"`
	Outcome   string  `json:"outcome"`
	Guard     string  `json:"guard"`
	Reason    string  `json:"reason"`
	Device    string  `json:"device"`
	Layers    int     `json:"layers"`
	Heads     int     `json:"heads"`      // KV heads
	QHeads    int     `json:"queryHeads"` // 0: the page brought no queries
	Tokens    int     `json:"tokens"`
	Ratio     float64 `json:"ratio"` // cores / tokens
	Dropped   float64 `json:"dropped"`
	BytesIn   int     `json:"bytesIn"`
	BytesOut  int     `json:"bytesOut"`
	MS        float64 `json:"ms"`        // to compress
	MeasureMS float64 `json:"measureMs"` // to measure the loss

	Measured       bool              `json:"measured"`
	AttentionError float64           `json:"attentionError"`
	WorstError     float64           `json:"worstError"`
	WorstHead      string            `json:"worstHead"`
	KeySimilarity  float64           `json:"keySimilarity"`
	Fidelity       map[string]string `json:"fidelity"` // all that the reply's metadata says of the loss

	Slots  [][]int     `json:"slots"`            // [layers][KV heads]: cores
	Loss   [][]float64 `json:"loss"`             // [layers][query heads]: relative error of the attention output; empty: not measured
	Assign string      `json:"assign,omitempty"` // base64 of [layers, KV heads, tokens] in 16 bits, little endian: a token's core; 65535: dropped
	YAML   string      `json:"yaml"`             // a policy with this profile
}

// Run tries a profile on a page.
func (s *Studio) Run(ctx context.Context, r Request) (*Result, error) {
	source, err := s.source(r.Source)
	if err != nil {
		return nil, err
	}
	profile, err := readProfile(r.Profile)
	if err != nil {
		return nil, err
	}
	return s.run(ctx, source, profile, true)
}

func readProfile(raw json.RawMessage) (map[string]any, error) {
	profile := map[string]any{}
	if len(raw) == 0 {
		return nil, failure(codes.StudioProfile, "profile must be there")
	}
	if err := json.Unmarshal(raw, &profile); err != nil {
		return nil, failure(codes.StudioProfile, "profile must be an object: %v", err)
	}
	return profile, nil
}

// maxAssign bounds the assignment that a result carries, in tokens over all heads.
const maxAssign = 8 << 20

func (s *Studio) run(ctx context.Context, source *Source, profile map[string]any, heads bool) (*Result, error) {
	set, err := compile(profile, true)
	if err != nil {
		return nil, err
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p, err := pipeline.New(pipeline.Config{Policy: func() *policy.Set { return set }, Compressor: s.comp, Models: s.opt.Models})
	if err != nil {
		return nil, err
	}
	out, err := p.Compress(ctx, tenant, source.blob)
	if err != nil {
		return nil, err
	}
	defer out.Release()
	whole, err := page.Decode(source.blob, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	cores, err := page.DecodeCores(out.Body, page.DefaultLimits())
	if err != nil {
		return nil, err
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	res := &Result{
		Source: source.ID, Outcome: out.Outcome, Guard: out.Guard, Reason: out.Reason, Device: out.Device,
		Layers: out.Layers, Heads: out.Heads, QHeads: whole.QHeads, Tokens: out.Tokens, Ratio: out.Ratio, Dropped: out.Dropped,
		BytesIn: out.BytesIn, BytesOut: out.BytesOut - len(cores.Assign), MS: ms(out.Stages.Compress - out.Stages.Measure), MeasureMS: ms(out.Stages.Measure),
		Measured: out.Measured, AttentionError: out.AttentionError, WorstError: out.WorstError, WorstHead: out.WorstHead,
		KeySimilarity: out.KeySimilarity, Fidelity: cores.Fidelity, Loss: [][]float64{}, YAML: Policy(profile),
	}
	for l := range cores.Layers {
		row := make([]int, cores.KVHeads)
		for h := range row {
			row[h] = cores.Head(l, h).N
		}
		res.Slots = append(res.Slots, row)
	}
	if !heads {
		return res, nil
	}
	if len(cores.Assign) > 0 && len(cores.Assign)/4 <= maxAssign {
		res.Assign = shorten(cores.Assign)
	}
	if whole.Q == nil || out.Outcome == "exact" {
		return res, nil
	}
	f, err := pipeline.Remeasure(ctx, s.comp, whole, cores)
	if err != nil {
		return nil, err
	}
	for l := range cores.Layers {
		res.Loss = append(res.Loss, f.Heads[l*whole.QHeads:(l+1)*whole.QHeads])
	}
	return res, nil
}

// shorten writes I32 as 16 bits in base64.
func shorten(assign []byte) string {
	b := make([]byte, 0, len(assign)/2)
	for i := 0; i+4 <= len(assign); i += 4 {
		b = binary.LittleEndian.AppendUint16(b, uint16(min(binary.LittleEndian.Uint32(assign[i:]), 0xffff)))
	}
	return base64.StdEncoding.EncodeToString(b)
}

// tenant is whose page it is while a profile is tried.
const tenant = "studio"

// compile makes a policy of a profile, so that it is checked as one.
func compile(profile map[string]any, assign bool) (*policy.Set, error) {
	p := map[string]any{}
	for k, v := range profile {
		p[k] = v
	}
	if assign && p["method"] != string(policy.MethodNone) {
		p["assign"] = true
	}
	doc, err := json.Marshal(map[string]any{ // JSON is YAML
		"apiVersion": policy.APIVersion, "profiles": map[string]any{"chosen": p},
		"tenants": map[string]any{tenant: map[string]any{"rules": []any{map[string]any{"profile": "chosen"}}}},
	})
	if err != nil {
		return nil, err
	}
	set, err := policy.Compile(policy.Source{Name: "profile", Data: doc})
	if err == nil {
		return set, nil
	}
	e := failure(codes.StudioProfile, "the profile has mistakes")
	for _, one := range strict.Problems(err) {
		e.Problems = append(e.Problems, place.ReplaceAllString(one.Error(), ""))
	}
	if len(e.Problems) == 0 {
		return nil, err
	}
	e.text = e.Problems[0]
	return nil, e
}

var place = regexp.MustCompile(`^profile:\d+(?::\d+)?: (profiles\.chosen\.?)?`)

// order is that of a profile's keys as a person reads them.
var order = []string{"method", "ratio", "threshold", "budget", "clusters", "exact", "regular", "fp8", "chunk", "protect", "guard", "store", "assign"}

// Policy writes a profile as a policy file that `semproxy policy check` takes.
func Policy(profile map[string]any) string {
	node := &yaml.Node{Kind: yaml.MappingNode}
	add := func(k string) {
		v, ok := profile[k]
		if !ok {
			return
		}
		var n yaml.Node
		if n.Encode(v) == nil {
			flow(&n)
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: k}, &n)
		}
	}
	known := map[string]bool{}
	for _, k := range order {
		known[k] = true
		add(k)
	}
	for k := range profile {
		if !known[k] {
			add(k)
		}
	}
	var head bytes.Buffer
	enc := yaml.NewEncoder(&head)
	enc.SetIndent(2)
	if errors.Join(enc.Encode(map[string]any{"profiles": map[string]any{"chosen": node}}), enc.Close()) != nil {
		return ""
	}
	return "apiVersion: " + policy.APIVersion + "\n" + head.String() + "tenants:\n  your-tenant: # the tenant's name\n    rules:\n      - profile: chosen\n"
}

// flow writes what is inside a key on its line.
func flow(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode {
		n.Style = yaml.FlowStyle
	}
}

// CurveRequest asks for the loss against the bytes of one method.
type CurveRequest struct {
	Source  string          `json:"source"`
	Profile json.RawMessage `json:"profile"` // whose ratio and guard are left aside
	Ratios  []float64       `json:"ratios"`
}

// Curve is one method's loss against the bytes that it keeps.
type Curve struct {
	Method string  `json:"method"`
	Points []Point `json:"points"`
	Layers int     `json:"layers"` // that it was measured on
	Of     int     `json:"of"`     // layers of the page
	Why    string  `json:"why,omitempty"`
}

// Point is one ratio of a curve.
type Point struct {
	Ratio    float64           `json:"ratio"` // reached
	Asked    float64           `json:"asked"`
	Bytes    float64           `json:"bytes"` // share of the page's
	Error    float64           `json:"attentionError"`
	Measured bool              `json:"measured"`
	MS       float64           `json:"ms"`
	Fidelity map[string]string `json:"fidelity"`
}

// Curve measures a method at several ratios, on a part of the layers where the page is large. A method that cannot be used on the page
// has no points, and says why.
func (s *Studio) Curve(ctx context.Context, r CurveRequest) (*Curve, error) {
	source, err := s.source(r.Source)
	if err != nil {
		return nil, err
	}
	profile, err := readProfile(r.Profile)
	if err != nil {
		return nil, err
	}
	if len(r.Ratios) < 1 || len(r.Ratios) > 16 {
		return nil, failure(codes.StudioRatios, "ratios must be 1 to 16 numbers")
	}
	method, _ := profile["method"].(string)
	out := &Curve{Method: method, Points: []Point{}}
	some, err := source.some(curveElements)
	if err != nil {
		return nil, err
	}
	out.Layers, out.Of = some.Layers, source.Layers
	for _, k := range []string{"guard", "threshold"} {
		delete(profile, k)
	}
	for _, ratio := range r.Ratios {
		profile["ratio"] = ratio
		res, err := s.run(ctx, some, profile, false)
		var mistake *Error
		var bad *compress.InputError
		switch {
		case errors.As(err, &mistake) || errors.As(err, &bad):
			out.Why = err.Error()
			return out, nil
		case err != nil:
			return nil, err
		}
		out.Points = append(out.Points, Point{
			Ratio: res.Ratio, Asked: ratio, Bytes: float64(res.BytesOut) / float64(res.BytesIn), Error: res.AttentionError,
			Measured: res.Measured, MS: res.MS, Fidelity: res.Fidelity,
		})
	}
	return out, nil
}

// curveElements bounds the work of one point of a curve: keys of all layers and heads.
const curveElements = 1 << 20
