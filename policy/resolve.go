package policy

import (
	"cmp"
	"slices"

	"github.com/semproxy/semproxy/defaults"
	"github.com/semproxy/semproxy/policy/strict"
)

const (
	maxProtected = 1 << 20 // tokens
	maxSpans     = 64
	maxPatterns  = 32
	maxPattern   = 128 // bytes
	maxHeaders   = 8   // of a rule

	maxLayers, maxHeads = 512, 1024 // of a page
)

// check collects problems about one document.
type check struct {
	doc      *strict.Doc
	problems *[]*strict.Error
}

// errorf reports a problem at path, unless the value there could not be read in the first place.
func (c check) errorf(path, format string, args ...any) {
	if c.doc.Failed(path) {
		return
	}
	*c.problems = append(*c.problems, c.doc.Errorf(path, format, args...))
}

// resolve checks a written profile and fills in every default.
func (c check) resolve(path string, s *ProfileSpec) Profile {
	if s.Method == nil {
		c.missing(path, "method")
		return Profile{Method: MethodNone, Ratio: 1}
	}
	p := Profile{Method: *s.Method, Ratio: 1}
	if s.Store != nil && s.Store.TTL != nil {
		p.Store.TTL = *s.Store.TTL
	}
	c.refuseIgnored(path, p.Method)
	c.bits(path, s, &p)
	if p.Method == MethodNone {
		return p
	}
	c.ratio(path, s, &p)
	if p.Method.Clusters() {
		c.budget(path, s, &p)
		c.threshold(path, s, &p)
		c.regular(path, s, &p)
		c.headWeights(path, s, &p)
		p.Chunk = c.chunk(path, s.Chunk, p.Method)
	}
	p.FP8 = value(s.FP8, false)
	p.Protect = c.protect(strict.Key(path, "protect"), s.Protect, p.Method)
	p.Guard = c.guard(strict.Key(path, "guard"), s.Guard)
	p.Assign = value(s.Assign, false)
	return p
}

// refuseIgnored refuses what would be ignored.
func (c check) refuseIgnored(path string, method Method) {
	why := "does not cluster"
	switch method {
	case MethodNone:
		why = "merges nothing"
	case MethodWeighted:
		why = "weighs merges, so that no similarity is a threshold"
	case MethodSemantic, MethodHybrid, MethodPaper:
		why = "weighs no merges"
	}
	for _, key := range method.Ignores() {
		if key = strict.Key(path, key); c.doc.Has(key) {
			c.errorf(key, "has no meaning with method %s, which %s; remove it", method, why)
		}
	}
}

func (c check) ratio(path string, s *ProfileSpec, p *Profile) {
	p.Ratio = value(s.Ratio, 0.5)
	if !(p.Ratio > 0 && p.Ratio <= 1) {
		c.errorf(strict.Key(path, "ratio"), "must be in (0,1], got %v", p.Ratio)
	}
}

// budget fills budget, clusters and exact. The defaults are the best rows that were measured: adaptive budgets want
// clusters per head and a quarter of exact slots, equal ones shared clusters and a half.
func (c check) budget(path string, s *ProfileSpec, p *Profile) {
	budget := BudgetAdaptive
	if p.Method == MethodPaper {
		budget = BudgetEqual
	}
	p.Budget = value(s.Budget, budget)
	clusters, exact := ClustersPerHead, defaults.Exact
	switch {
	case p.Method == MethodPaper:
		exact = 0
	case p.Method == MethodWeighted:
		exact = defaults.ExactWeighted
	case p.Budget == BudgetEqual:
		clusters, exact = ClustersShared, defaults.ExactEqual
	}
	p.Clusters, p.Exact = value(s.Clusters, clusters), value(s.Exact, exact)
	if !(p.Exact >= 0 && p.Exact < 1) {
		c.errorf(strict.Key(path, "exact"), "must be in [0,1), got %v", p.Exact)
	}
}

// threshold fills threshold, which replaces ratio and exact.
func (c check) threshold(path string, s *ProfileSpec, p *Profile) {
	if s.Threshold == nil {
		return
	}
	t := *s.Threshold
	if !(t > -1 && t <= 1) {
		c.errorf(strict.Key(path, "threshold"), "must be in (-1,1], got %v", t)
	}
	for _, key := range []struct {
		name string
		set  bool
	}{{"ratio", s.Ratio != nil}, {"budget", s.Budget != nil}, {"exact", s.Exact != nil}} {
		if key.set {
			c.errorf(strict.Key(path, key.name), "cannot be combined with threshold, which lets the data decide how much is kept; remove one")
		}
	}
	p.Threshold, p.Ratio, p.Exact = &t, 1, 0
}

// bits fills bits. 16 is what a page has already.
func (c check) bits(path string, s *ProfileSpec, p *Profile) {
	switch value(s.Bits, 16) {
	case 16:
	case 4, 8:
		p.Bits = *s.Bits
		if value(s.FP8, false) {
			c.errorf(strict.Key(path, "bits"), "cannot be combined with fp8, which is another way to write keys and values; remove one")
		}
	default:
		c.errorf(strict.Key(path, "bits"), "must be 4, 8 or 16, got %d", *s.Bits)
	}
}

// regular fills regular, which only an equal number of cores for all can be.
func (c check) regular(path string, s *ProfileSpec, p *Profile) {
	equal := p.Budget == BudgetEqual && p.Threshold == nil
	if s.Regular != nil && !equal {
		c.errorf(strict.Key(path, "regular"), "has meaning only with budget equal, which gives all heads the same number of cores; remove it")
	}
	p.Regular = equal && value(s.Regular, p.Method != MethodPaper)
}

// headWeights takes the weights over. All 1, of whatever shape, says that the heads are alike, though semproxy may know the model.
func (c check) headWeights(path string, s *ProfileSpec, p *Profile) {
	if s.HeadWeights == nil {
		return
	}
	path = strict.Key(path, "headWeights")
	if p.Budget == BudgetEqual {
		c.errorf(path, "has no meaning with budget equal, which gives all heads the same number of cores; remove it")
	}
	if n := len(s.HeadWeights); n < 1 || n > maxLayers {
		c.errorf(path, "must have a list for each layer of the model, 1 to %d, got %d", maxLayers, n)
		return
	}
	even := true
	for l, heads := range s.HeadWeights {
		here := strict.Index(path, l)
		if n := len(heads); n < 1 || n > maxHeads || n != len(s.HeadWeights[0]) {
			c.errorf(here, "must have a number for each KV head, as many as the first layer and 1 to %d, got %d", maxHeads, n)
		}
		for h, w := range heads {
			even = even && w == 1
			if !(w >= 1.0/defaults.MaxHeadWeight && w <= defaults.MaxHeadWeight) {
				c.errorf(strict.Index(here, h), "must be in [1/%d,%d], got %v", defaults.MaxHeadWeight, defaults.MaxHeadWeight, w)
			}
		}
	}
	p.HeadWeights = s.HeadWeights
	if even {
		p.HeadWeights = [][]float64{{1}}
	}
}

func (c check) chunk(path string, s *ChunkSpec, method Method) Chunk {
	out := Chunk{Min: defaults.ChunkMin, Max: defaults.ChunkMax}
	if method == MethodPaper {
		out = Chunk{Min: defaults.PaperChunkMin, Max: defaults.PaperChunkMax}
	}
	if s == nil {
		return out
	}
	path = strict.Key(path, "chunk")
	out = Chunk{Min: value(s.Min, out.Min), Max: value(s.Max, out.Max)}
	c.within(strict.Key(path, "min"), out.Min, 1, defaults.MaxChunk)
	c.within(strict.Key(path, "max"), out.Max, 1, defaults.MaxChunk)
	if out.Min > out.Max {
		c.errorf(path, "min must not be larger than max, got min %d and max %d", out.Min, out.Max)
	}
	return out
}

func (c check) protect(path string, s *ProtectSpec, method Method) Protect {
	out, least := Protect{Sinks: defaults.Sinks, Recent: defaults.Recent}, 0
	if method == MethodWeighted {
		out.Recent = defaults.RecentWeighted
	}
	window := method == MethodWindow
	if window {
		out.Recent, least = 0, 1 // the ratio says how many recent tokens; with one first token no page is dropped whole
	}
	if s == nil {
		return out
	}
	out.Sinks, out.Recent = value(s.Sinks, out.Sinks), value(s.Recent, out.Recent)
	if window && s.Recent != nil {
		c.errorf(strict.Key(path, "recent"), "has no meaning with method window, which keeps as many recent tokens as the ratio allows; remove it")
	}
	c.within(strict.Key(path, "sinks"), out.Sinks, least, maxProtected)
	c.within(strict.Key(path, "recent"), out.Recent, 0, maxProtected)
	spans := strict.Key(path, "spans")
	if len(s.Spans) > maxSpans {
		c.errorf(spans, "must have at most %d ranges, got %d", maxSpans, len(s.Spans))
	}
	for i, span := range s.Spans {
		at := strict.Index(spans, i)
		c.missing(at, "from")
		c.missing(at, "to")
		if span.From < 0 {
			c.errorf(strict.Key(at, "from"), "must not be negative, got %d", span.From)
		}
		if span.To <= span.From && c.doc.Has(strict.Key(at, "to")) {
			c.errorf(at, "to must be larger than from, got from %d to %d", span.From, span.To)
		}
	}
	out.Spans = merged(s.Spans)
	out.Patterns = c.patterns(strict.Key(path, "patterns"), s.Patterns)
	out.Roles = sortedOnce(s.Roles)
	return out
}

// patterns returns the texts sorted, each once, so that equal protection has one form.
func (c check) patterns(path string, texts []string) []string {
	if len(texts) > maxPatterns {
		c.errorf(path, "must have at most %d texts, got %d", maxPatterns, len(texts))
	}
	for i, text := range texts {
		if at := strict.Index(path, i); len(text) < 1 || len(text) > maxPattern {
			c.errorf(at, "must have 1 to %d bytes, got %d", maxPattern, len(text))
		}
	}
	return sortedOnce(texts)
}

func sortedOnce[T ~string](texts []T) []T {
	sorted := slices.Clone(texts)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}

func (c check) guard(path string, s *GuardSpec) Guard {
	if s == nil {
		return Guard{}
	}
	g := Guard{MaxFactsLost: value(s.MaxFactsLost, 0), MaxAttentionError: value(s.MaxAttentionError, 0), OnViolation: value(s.OnViolation, ViolationRelax)}
	if s.MaxFactsLost == nil && s.MaxAttentionError == nil {
		c.missing(path, "maxFactsLost")
		return Guard{}
	}
	if s.MaxFactsLost != nil && !(g.MaxFactsLost > 0 && g.MaxFactsLost < 1) {
		c.errorf(strict.Key(path, "maxFactsLost"), "must be in (0,1), a share such as 0.02, got %v", g.MaxFactsLost)
	}
	if s.MaxAttentionError != nil && !(g.MaxAttentionError > 0) {
		c.errorf(strict.Key(path, "maxAttentionError"), "must be larger than 0, got %v", g.MaxAttentionError)
	}
	if s.LossCurve != nil && c.lossCurve(strict.Key(path, "lossCurve"), s.LossCurve) {
		g.LossCurve = s.LossCurve
	}
	return g
}

// maxCurve is the most points of a loss curve.
const maxCurve = 64

// lossCurve reports whether the points are a curve: both numbers in [0, 1], the first strictly rising, the second not falling.
func (c check) lossCurve(path string, points [][]float64) bool {
	if n := len(points); n < 2 || n > maxCurve {
		c.errorf(path, "must have 2 to %d points, got %d", maxCurve, n)
		return false
	}
	for i, p := range points {
		at := strict.Index(path, i)
		switch {
		case len(p) != 2:
			c.errorf(at, "must be two numbers, the lookup error and the share of facts lost, got %d", len(p))
			return false
		case !(p[0] >= 0 && p[0] <= 1 && p[1] >= 0 && p[1] <= 1):
			c.errorf(at, "both numbers must be in [0,1], got %v", p)
			return false
		case i > 0 && (p[0] <= points[i-1][0] || p[1] < points[i-1][1]):
			c.errorf(at, "must rise: after %v comes %v", points[i-1], p)
			return false
		}
	}
	return true
}

// missing reports a required key that the document does not have.
func (c check) missing(path, key string) {
	if path = strict.Key(path, key); !c.doc.Has(path) {
		c.errorf(path, "is missing")
	}
}

func (c check) within(path string, got, low, high int) {
	if got < low || got > high {
		c.errorf(path, "must be in [%d,%d], got %d", low, high, got)
	}
}

// merged sorts ranges and joins those that touch, so that equal protection has one form.
func merged(spans []Span) []Span {
	sorted := slices.Clone(spans)
	slices.SortFunc(sorted, func(a, b Span) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	var out []Span
	for _, s := range sorted {
		if n := len(out); n > 0 && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
			continue
		}
		out = append(out, s)
	}
	return out
}

func value[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
