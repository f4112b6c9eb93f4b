package policy

import (
	"cmp"
	"slices"

	"github.com/semproxy/semproxy/policy/strict"
)

const (
	maxChunk     = 1024    // tokens; a chunk's similarities are a square
	maxProtected = 1 << 20 // tokens
	maxSpans     = 64
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
	if p.Method == MethodNone {
		c.onlyWithMerging(path, s)
		return p
	}
	c.budget(path, s, &p)
	p.Chunk = c.chunk(path, s.Chunk, p.Method)
	p.Protect = c.protect(strict.Key(path, "protect"), s.Protect)
	p.Guard = c.guard(strict.Key(path, "guard"), s.Guard)
	p.Assign = value(s.Assign, false)
	return p
}

// onlyWithMerging refuses what would be ignored.
func (c check) onlyWithMerging(path string, s *ProfileSpec) {
	for _, key := range []struct {
		name string
		set  bool
	}{
		{"ratio", s.Ratio != nil}, {"threshold", s.Threshold != nil}, {"budget", s.Budget != nil},
		{"clusters", s.Clusters != nil}, {"exact", s.Exact != nil}, {"chunk", s.Chunk != nil},
		{"protect", s.Protect != nil}, {"guard", s.Guard != nil}, {"assign", s.Assign != nil},
	} {
		if key.set {
			c.errorf(strict.Key(path, key.name), "has no meaning with method none, which merges nothing; remove it")
		}
	}
}

// budget fills ratio, threshold, budget, clusters and exact. The defaults are the best rows that were measured: adaptive
// budgets want clusters per head and a quarter of exact slots, equal ones shared clusters and a half.
func (c check) budget(path string, s *ProfileSpec, p *Profile) {
	budget := BudgetAdaptive
	if p.Method == MethodPaper {
		budget = BudgetEqual
	}
	p.Budget = value(s.Budget, budget)
	clusters, exact := ClustersPerHead, 0.25
	switch {
	case p.Method == MethodPaper:
		exact = 0
	case p.Budget == BudgetEqual:
		clusters, exact = ClustersShared, 0.5
	}
	p.Clusters, p.Exact, p.Ratio = value(s.Clusters, clusters), value(s.Exact, exact), value(s.Ratio, 0.5)
	if !(p.Ratio > 0 && p.Ratio <= 1) {
		c.errorf(strict.Key(path, "ratio"), "must be in (0,1], got %v", p.Ratio)
	}
	if !(p.Exact >= 0 && p.Exact < 1) {
		c.errorf(strict.Key(path, "exact"), "must be in [0,1), got %v", p.Exact)
	}
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

func (c check) chunk(path string, s *ChunkSpec, method Method) Chunk {
	out := Chunk{Min: 64, Max: 96}
	if method == MethodPaper {
		out = Chunk{Min: 16, Max: 64}
	}
	if s == nil {
		return out
	}
	path = strict.Key(path, "chunk")
	out = Chunk{Min: value(s.Min, out.Min), Max: value(s.Max, out.Max)}
	c.within(strict.Key(path, "min"), out.Min, 1, maxChunk)
	c.within(strict.Key(path, "max"), out.Max, 1, maxChunk)
	if out.Min > out.Max {
		c.errorf(path, "min must not be larger than max, got min %d and max %d", out.Min, out.Max)
	}
	return out
}

func (c check) protect(path string, s *ProtectSpec) Protect {
	out := Protect{Sinks: 4, Recent: 32}
	if s == nil {
		return out
	}
	out.Sinks, out.Recent = value(s.Sinks, out.Sinks), value(s.Recent, out.Recent)
	c.within(strict.Key(path, "sinks"), out.Sinks, 0, maxProtected)
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
	return out
}

func (c check) guard(path string, s *GuardSpec) Guard {
	switch {
	case s == nil:
		return Guard{}
	case s.MaxAttentionError == nil:
		c.missing(path, "maxAttentionError")
		return Guard{}
	case !(*s.MaxAttentionError > 0):
		c.errorf(strict.Key(path, "maxAttentionError"), "must be larger than 0, got %v", *s.MaxAttentionError)
	}
	return Guard{MaxAttentionError: *s.MaxAttentionError, OnViolation: value(s.OnViolation, ViolationRelax)}
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
