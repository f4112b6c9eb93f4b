package policy

import (
	"slices"
	"strconv"
)

// Set is a compiled policy. It is immutable and safe for concurrent use; take one Set per request and ask it everything.
type Set struct {
	version  string
	tenants  map[string]*tenant
	names    []string // of tenants, sorted
	profiles map[string]Profile
	warnings []Warning
}

// Request is what a decision depends on.
type Request struct {
	Tenant string
	Model  string
	Tokens int // length of the sequence in tokens

	// Header is the value of a header of the request, in canonical form; empty when it is not there, or more than once. nil:
	// the request has none, as a page that no request through the proxy is known for.
	Header func(name string) string
}

func (r *Request) header(name string) string {
	if r.Header == nil {
		return ""
	}
	return r.Header(name)
}

// Decision says which profile applies and why. Plan and everything in it belongs to the Set: read only.
type Decision struct {
	Tenant       string  `json:"tenant"`   // as requested, also where the rules of "unknown" applied
	Profile      string  `json:"profile"`  // name
	Rule         string  `json:"rule"`     // such as tenants.acme.rules[1], defaults.profile or builtin.exact
	RuleName     string  `json:"ruleName"` // what its author calls it; may be empty
	Source       string  `json:"source"`   // file:line of the rule; empty for builtin.exact
	RuleIndex    int     `json:"ruleIndex"`
	Plan         Profile `json:"plan"`         // resolved: every default filled in
	PolicyDigest string  `json:"policyDigest"` // Plan.Digest()
	Reason       string  `json:"reason"`       // a sentence for a person
	Version      string  `json:"version"`      // of the Set
}

// Decide returns the decision of the first rule that matches, of the tenant's own rules or else those of "unknown"; then
// defaults.profile; then no compression. RuleIndex is -1 where no rule matched. The error is a *DeniedError. Decide is pure
// and does not allocate.
func (s *Set) Decide(r Request) (Decision, error) {
	t := s.entry(r.Tenant)
	if t == nil {
		return Decision{}, &DeniedError{Tenant: r.Tenant}
	}
	d := t.fallback
	for i := range t.rules {
		if t.rules[i].match.matches(&r) {
			d = t.rules[i].decision
			break
		}
	}
	d.Tenant = r.Tenant
	return d, nil
}

// entry returns the rules that serve a tenant; nil when it is denied.
func (s *Set) entry(name string) *tenant {
	if t, ok := s.tenants[name]; ok {
		return t
	}
	if name == "" {
		return nil
	}
	return s.tenants[UnknownTenant]
}

// Resolve returns the name of the entry that serves tenant: itself, or "unknown". It is false when the tenant is denied.
// The result is one of Tenants, so it is safe as the key of a map or the label of a metric, which tenant is not.
func (s *Set) Resolve(tenant string) (string, bool) {
	if t := s.entry(tenant); t != nil {
		return t.name, true
	}
	return "", false
}

// Limits returns the limits of the entry that serves tenant; none for a tenant that is denied.
func (s *Set) Limits(tenant string) Limits {
	if t := s.entry(tenant); t != nil {
		return t.limits
	}
	return Limits{}
}

// Record says what the console may keep of a tenant's pages.
func (s *Set) Record(tenant string) Record {
	if t := s.entry(tenant); t != nil {
		return t.record
	}
	return RecordOff
}

// Headers returns the names of the headers that the rules which serve tenant look at, sorted. It belongs to the Set: read only.
func (s *Set) Headers(tenant string) []string {
	if t := s.entry(tenant); t != nil {
		return t.headers
	}
	return nil
}

// Verify says how the answers of a tenant are verified.
func (s *Set) Verify(tenant string) Verify {
	if t := s.entry(tenant); t != nil {
		return t.verify
	}
	return Verify{}
}

// Allows says whether the entry that serves tenant names a path that is not in the proxy's table of routes.
func (s *Set) Allows(tenant, path string) bool {
	t := s.entry(tenant)
	return t != nil && slices.Contains(t.routes, path)
}

// Names says whether any entry names a path that is not in the proxy's table of routes.
func (s *Set) Names(path string) bool {
	for _, t := range s.tenants {
		if slices.Contains(t.routes, path) {
			return true
		}
	}
	return false
}

// Version is the SHA-256, in hexadecimal, of what the set means: two sets with the same version decide alike. Comments,
// layout and file names are not part of it.
func (s *Set) Version() string { return s.version }

// Tenants returns the names of all entries, sorted, "unknown" included. The caller owns the slice.
func (s *Set) Tenants() []string { return slices.Clone(s.names) }

// Profile returns a profile by name, built-in ones included.
func (s *Set) Profile(name string) (Profile, bool) {
	p, ok := s.profiles[name]
	return p, ok
}

// Profiles returns the names of all profiles, sorted, built-in ones included. The caller owns the slice.
func (s *Set) Profiles() []string { return sortedKeys(s.profiles) }

// Warnings returns what is allowed and probably not wanted, by file and line. The caller owns the slice.
func (s *Set) Warnings() []Warning { return slices.Clone(s.warnings) }

// Rule describes one rule of a tenant.
type Rule struct {
	Rule    string `json:"rule"`   // such as tenants.acme.rules[1]
	Source  string `json:"source"` // file:line
	Name    string `json:"name,omitempty"`
	Match   string `json:"match"` // in words
	Profile string `json:"profile"`
}

// Rules lists what is tried for tenant, in order; the last element is what applies when no rule matches.
func (s *Set) Rules(tenant string) []Rule {
	t := s.entry(tenant)
	if t == nil {
		return nil
	}
	out := make([]Rule, 0, len(t.rules)+1)
	for i := range t.rules {
		d := &t.rules[i].decision
		out = append(out, Rule{Rule: d.Rule, Source: d.Source, Name: d.RuleName, Match: t.rules[i].match.String(), Profile: d.Profile})
	}
	d := &t.fallback
	return append(out, Rule{Rule: d.Rule, Source: d.Source, Match: "every other request", Profile: d.Profile})
}

// Step is one thing that Decide looked at.
type Step struct {
	Rule    string `json:"rule"`
	Source  string `json:"source"` // file:line
	Name    string `json:"name,omitempty"`
	Profile string `json:"profile,omitempty"`
	Matched bool   `json:"matched"`
	Why     string `json:"why"`
}

// Explain lists what Decide looks at for r, in order, and why each rule matched or not. The last step is the one that decided.
func (s *Set) Explain(r Request) []Step {
	t := s.entry(r.Tenant)
	if t == nil {
		denied := &DeniedError{Tenant: r.Tenant}
		return []Step{{Rule: "tenants", Why: denied.Error()}}
	}
	var steps []Step
	if t.name != r.Tenant {
		steps = append(steps, Step{Rule: "tenants", Why: "tenant " + strconv.Quote(r.Tenant) + " is not named, so the rules of " + t.name + " apply"})
	}
	for i := range t.rules {
		m, d := &t.rules[i].match, &t.rules[i].decision
		step := Step{
			Rule: d.Rule, Source: d.Source, Name: d.RuleName, Profile: d.Profile,
			Matched: m.matches(&r), Why: m.why(&r),
		}
		if steps = append(steps, step); step.Matched {
			return steps
		}
	}
	d := &t.fallback
	return append(steps, Step{Rule: d.Rule, Source: d.Source, Profile: d.Profile, Matched: true, Why: d.Reason})
}
