package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/semproxy/semproxy/policy/strict"
)

// Ratios at and below which a person is warned; measured on the project's model (docs/policy.md).
const (
	LossyRatio  = 0.25
	UnsafeRatio = 0.125
)

// warn looks for what is allowed and probably not wanted.
func (c *compiler) warn() {
	for _, name := range sortedKeys(c.defined) {
		from := c.defined[name]
		if method := c.profiles[name].Method; method.Evicts() {
			c.warning(from, strict.Key(from.path, "method"), WarnEvicts,
				"%s drops tokens: counts sum to less than the tokens given; an honest baseline, not recommended", method)
		}
		switch ratio := c.profiles[name].Ratio; {
		case ratio <= UnsafeRatio:
			c.warning(from, strict.Key(from.path, "ratio"), WarnUnsafe, "a ratio of %v loses facts; start at 0.5", ratio)
		case ratio <= LossyRatio:
			c.warning(from, strict.Key(from.path, "ratio"), WarnLossy, "a ratio of %v is lossy; start at 0.5", ratio)
		}
		if _, builtin := builtins()[name]; !c.used[name] && !builtin {
			c.warning(from, from.path, WarnUnused, "no rule and no default names this profile")
		}
	}
	for _, name := range c.set.names {
		from, rules := c.tenants[name], c.set.tenants[name].rules
		for i := range rules {
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
		if d := &t.rules[i].decision; d.Plan.Method != MethodNone {
			c.warning(c.tenants[UnknownTenant], d.Rule, WarnUnnamed, problem, d.Profile)
		}
	}
	last := everything()
	catchAll := slices.ContainsFunc(t.rules, func(r rule) bool { return r.match.covers(&last) })
	if !catchAll && t.fallback.Plan.Method != MethodNone {
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
