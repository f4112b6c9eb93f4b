package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/semproxy/semproxy/policy/strict"
)

// Ratios at and below which a person is warned; measured on the project's model (docs/reference/policy.md).
const (
	LossyRatio  = 0.25
	UnsafeRatio = 0.125
)

// expression finds what only regular expressions are written with.
var expression = regexp.MustCompile(`^\^|\$$|\.[*+?]|\(\?|\[[^\]]*\][*+?]?|\\|\|`)

// warn looks for what is allowed and probably not wanted.
func (c *compiler) warn() {
	for _, name := range sortedKeys(c.defined) {
		from := c.defined[name]
		if method := c.profiles[name].Method; method.Evicts() {
			c.warning(from, strict.Key(from.path, "method"), WarnEvicts,
				"%s drops tokens: counts sum to less than the tokens given; an honest baseline, not recommended", method)
		}
		if c.profiles[name].Guard.MaxAttentionError > 0 {
			c.warning(from, strict.Key(from.path, "guard"), WarnOldGuard,
				"maxAttentionError hardly tells how much is lost (docs/reference/policy.md); use maxFactsLost, such as 0.02")
		}
		switch ratio := c.profiles[name].Ratio; {
		case ratio <= UnsafeRatio:
			c.warning(from, strict.Key(from.path, "ratio"), WarnUnsafe, "a ratio of %v loses facts; start at 0.5", ratio)
		case ratio <= LossyRatio:
			c.warning(from, strict.Key(from.path, "ratio"), WarnLossy, "a ratio of %v is lossy; start at 0.5", ratio)
		}
		if limit := c.profiles[name].Guard.MaxAttentionError; limit >= 1 {
			c.warning(from, strict.Key(from.path, "guard"), WarnGuard,
				"maxAttentionError is a relative error: at %v nothing is left of the output when the guard acts; start at 0.3", limit)
		}
		if _, builtin := builtins()[name]; !c.used[name] && !builtin {
			c.warning(from, from.path, WarnUnused, "no rule and no default names this profile")
		}
	}
	for _, name := range c.set.names {
		from, rules := c.tenants[name], c.set.tenants[name].rules
		if slices.Contains([]string{"default", "defaults", "all", "any", "other", "others", "everyone"}, strings.ToLower(name)) {
			c.warning(from, from.path, WarnReserved, "is a tenant of that name; tenants that no file names are called %s", UnknownTenant)
		}
		if name == UnknownTenant && c.set.tenants[name].record != RecordOff {
			c.warning(from, strict.Key(from.path, "record"), WarnRecord, "the console would keep pages of tenants that no file names")
		}
		for i := range rules {
			if model := rules[i].match.Model; expression.MatchString(model) {
				c.warning(from, strict.Key(rules[i].decision.Rule, "match"), WarnPattern,
					"model %q looks like a regular expression; it is a pattern where * stands for any text and ? for one character", model)
			}
			first := slices.IndexFunc(rules[:i], func(r rule) bool { return r.match.covers(&rules[i].match) })
			if first >= 0 {
				path := rules[i].decision.Rule
				c.warning(from, path, WarnUnreachable, "is never reached: rules[%d] already matches %s", first, rules[first].match)
			}
		}
	}
	c.warnUnnamed()
	c.set.warnings = sortedWarnings(c.set.warnings)
}

// warnUnnamed looks for profiles that merge and that tenants whom nobody named can reach.
func (c *compiler) warnUnnamed() {
	t, ok := c.set.tenants[UnknownTenant]
	if !ok {
		return
	}
	const problem = "tenants that no file names would be compressed by profile %s"
	for i := range t.rules {
		if d := &t.rules[i].decision; !d.Plan.Untouched() {
			c.warning(c.tenants[UnknownTenant], d.Rule, WarnUnnamed, problem, d.Profile)
		}
	}
	last := everything()
	catchAll := slices.ContainsFunc(t.rules, func(r rule) bool { return r.match.covers(&last) })
	if !catchAll && !t.fallback.Plan.Untouched() {
		from := c.tenants[UnknownTenant]
		c.warning(from, from.path, WarnUnnamed, problem+", through defaults.profile", t.fallback.Profile)
	}
}

func (c *compiler) warning(from origin, path, kind, format string, args ...any) {
	c.set.warnings = append(c.set.warnings, Warning{
		Where: from.doc.Where(path), Path: path, Kind: kind, Message: fmt.Sprintf(format, args...),
		file: from.doc.File(), line: from.doc.Line(path),
	})
}

func sortedWarnings(w []Warning) []Warning {
	slices.SortStableFunc(w, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line))
	})
	return w
}
