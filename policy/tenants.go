package policy

import (
	"cmp"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"

	"github.com/semproxy/semproxy/policy/strict"
)

func (c *compiler) addTenants(f parsed) {
	for _, name := range sortedKeys(f.file.Tenants) {
		path := strict.Key("tenants", name)
		if !tenantName.MatchString(name) {
			f.errorf(path, "name must be 1 to 64 letters, digits, dashes or underscores, got %q", name)
		}
		if !c.claim(f, c.tenants, name, path, "tenant") {
			continue
		}
		spec := f.file.Tenants[name]
		t := &tenant{name: name, limits: f.limits(strict.Key(path, "limits"), spec.Limits), routes: f.routes(strict.Key(path, "routes"), spec.Routes), verify: f.verify(strict.Key(path, "verify"), spec.Verify), record: value(spec.Record, RecordOff)}
		for i := range spec.Rules {
			t.rules = append(t.rules, c.rule(f, t, strict.Index(strict.Key(path, "rules"), i), i, &spec.Rules[i]))
			for _, h := range t.rules[i].match.Headers {
				t.headers = append(t.headers, h.Name)
			}
		}
		t.headers = sortedOnce(t.headers)
		t.fallback = c.otherwise(t)
		c.set.tenants[name] = t
	}
}

// Verify says how a tenant's answers are verified; a Share of 0: not.
type Verify struct {
	Share      float64 `json:"share,omitempty"`
	MaxChanged float64 `json:"maxChanged,omitempty"` // 0: only reported
}

func (c check) verify(path string, s *VerifySpec) (v Verify) {
	if s == nil {
		return v
	}
	v = Verify{Share: value(s.Share, 0), MaxChanged: value(s.MaxChanged, 0)}
	if !(v.Share > 0 && v.Share <= 1) {
		c.errorf(strict.Key(path, "share"), "must be in (0,1], got %v; to verify nothing, remove verify", v.Share)
	}
	if s.MaxChanged != nil && !(v.MaxChanged > 0 && v.MaxChanged < 1) {
		c.errorf(strict.Key(path, "maxChanged"), "must be in (0,1), got %v; only to report, remove the key", v.MaxChanged)
	}
	return v
}

// routes checks paths that are named beyond the proxy's table.
func (c check) routes(path string, names []string) []string {
	if len(names) > 64 {
		c.errorf(path, "must have at most 64 paths, got %d", len(names))
	}
	for i, name := range names {
		if len(name) > 256 || !plainPath.MatchString(name) {
			c.errorf(strict.Index(path, i), "must be a path such as /v1/audio/transcriptions, got %q", name)
		}
	}
	return sortedOnce(names)
}

// plainPath is a path without anything that could be read in two ways.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$`)

// limits resolves what is written; sizes check themselves when they are read.
func (c check) limits(path string, s *LimitsSpec) Limits {
	if s == nil {
		return Limits{}
	}
	for _, rate := range []struct {
		key   string
		value *float64
	}{{"pagesPerSecond", s.PagesPerSecond}, {"requestsPerSecond", s.RequestsPerSecond}, {"tokensPerMinute", s.TokensPerMinute}, {"tokensPerHour", s.TokensPerHour}, {"tokensPerDay", s.TokensPerDay}} {
		if rate.value != nil && !(*rate.value > 0) {
			c.errorf(strict.Key(path, rate.key), "must be larger than 0, got %v; without a limit, remove the key", *rate.value)
		}
	}
	if w := value(s.CachedWeight, 1); !(w >= 0 && w <= 1) {
		c.errorf(strict.Key(path, "cachedTokenWeight"), "must be in [0,1], got %v", w)
	}
	if w := value(s.ReasoningWeight, 1); !(w >= 0 && w <= 1000) {
		c.errorf(strict.Key(path, "reasoningTokenWeight"), "must be in [0,1000], got %v", w)
	}
	for _, count := range []struct {
		key   string
		value *int
	}{{"concurrentRequests", s.ConcurrentRequests}, {"queuedRequests", s.QueuedRequests}} {
		if count.value != nil && *count.value < 1 {
			c.errorf(strict.Key(path, count.key), "must be at least 1, got %d; for the default, remove the key", *count.value)
		}
	}
	return Limits{
		PagesPerSecond: value(s.PagesPerSecond, 0),
		InFlightBytes:  value(s.InFlightBytes, 0),
		StoredBytes:    value(s.StoredBytes, 0),
		QueuedBytes:    value(s.QueuedBytes, 0),

		RequestsPerSecond:  value(s.RequestsPerSecond, 0),
		TokensPerMinute:    value(s.TokensPerMinute, 0),
		ConcurrentRequests: value(s.ConcurrentRequests, 0),
		QueuedRequests:     value(s.QueuedRequests, 0),

		TokensPerHour: value(s.TokensPerHour, 0), TokensPerDay: value(s.TokensPerDay, 0), Shadow: value(s.Shadow, false),
		CachedWeight: s.CachedWeight, ReasoningWeight: s.ReasoningWeight,
	}
}

func (c *compiler) rule(f parsed, t *tenant, path string, index int, s *RuleSpec) rule {
	match := f.match(strict.Key(path, "match"), s.Match)
	if len(s.Name) > 128 {
		f.errorf(strict.Key(path, "name"), "must have at most 128 bytes, got %d", len(s.Name))
	}
	profile := ProfileExact
	if s.Profile == nil {
		f.missing(path, "profile")
	} else if c.knows(f, strict.Key(path, "profile"), *s.Profile) {
		profile = *s.Profile
	}
	d := c.decision(profile)
	d.Rule, d.RuleName, d.RuleIndex, d.Source = path, s.Name, index, f.doc.Where(path)
	d.Reason = "rule " + path
	if s.Name != "" {
		d.Reason += " (" + s.Name + ")"
	}
	d.Reason += " of " + d.Source + " sends " + match.String() + " to profile " + profile
	if t.name == UnknownTenant {
		d.Reason = "no file names the tenant: " + d.Reason
	}
	return rule{match: match, decision: d}
}

func (c check) match(path string, s *MatchSpec) Match {
	m := everything()
	if s == nil {
		return m
	}
	m = Match{Model: value(s.Model, m.Model), MinTokens: value(s.MinTokens, m.MinTokens), MaxTokens: value(s.MaxTokens, m.MaxTokens)}
	if m.Model == "" || len(m.Model) > 256 {
		c.errorf(strict.Key(path, "model"), "must have 1 to 256 bytes, got %d", len(m.Model))
	}
	if m.MinTokens < 0 {
		c.errorf(strict.Key(path, "minTokens"), "must not be negative, got %d", m.MinTokens)
	}
	if m.MaxTokens < 0 {
		c.errorf(strict.Key(path, "maxTokens"), "must not be negative, got %d", m.MaxTokens)
	}
	if m.MinTokens > m.MaxTokens {
		c.errorf(path, "minTokens must not be larger than maxTokens, got %d and %d", m.MinTokens, m.MaxTokens)
	}
	m.Headers = c.headers(strict.Key(path, "headers"), s.Headers)
	return m
}

// matchable are headers that a rule may look at. Credentials are not among them, nor what proxies say of each other.
var (
	matchable   = regexp.MustCompile(`^(X-[A-Za-z0-9-]{1,62}|User-Agent)$`)
	unmatchable = regexp.MustCompile(`^X-(Api-Key|Auth.*|.*(Token|Secret|Password|Signature).*|Forwarded-.*|Real-Ip|Request-Id)$`)
)

func (c check) headers(path string, patterns map[string]string) []HeaderMatch {
	if len(patterns) > maxHeaders {
		c.errorf(path, "must have at most %d headers, got %d", maxHeaders, len(patterns))
	}
	out := make([]HeaderMatch, 0, len(patterns))
	for _, name := range sortedKeys(patterns) {
		at, canonical, value := strict.Key(path, name), textproto.CanonicalMIMEHeaderKey(name), patterns[name]
		switch {
		case !matchable.MatchString(canonical) || unmatchable.MatchString(canonical):
			c.errorf(at, "must be User-Agent or a header that begins with X- and carries no credential and nothing of other proxies")
		case len(value) < 1 || len(value) > 256:
			c.errorf(at, "must have a pattern of 1 to 256 bytes, got %d", len(value))
		case slices.ContainsFunc(out, func(h HeaderMatch) bool { return h.Name == canonical }):
			c.errorf(at, "is there twice, in other letters")
		}
		out = append(out, HeaderMatch{canonical, value})
	}
	slices.SortFunc(out, func(a, b HeaderMatch) int { return cmp.Compare(a.Name, b.Name) })
	if len(out) == 0 {
		return nil
	}
	return out
}

// otherwise is the decision when no rule of a tenant matches: defaults.profile, else no compression.
func (c *compiler) otherwise(t *tenant) Decision {
	d, then := c.fallback, "so defaults.profile applies: "+strconv.Quote(c.fallback.Profile)
	if d.Profile == "" {
		d, then = c.builtinExact(), "and there is no defaults.profile, so nothing is compressed"
	}
	why := "no rule of tenant " + t.name + " matches, "
	if len(t.rules) == 0 {
		why = "tenant " + t.name + " has no rules, "
	}
	d.Reason = why + then
	return d
}

// builtinExact never compresses, whatever the files say.
func (c *compiler) builtinExact() Decision {
	plan := builtins()[ProfileExact]
	return Decision{Profile: ProfileExact, Rule: "builtin.exact", RuleIndex: -1, Plan: plan, PolicyDigest: plan.Digest()}
}
