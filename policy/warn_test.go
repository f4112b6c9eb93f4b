package policy_test

import (
	"reflect"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

func TestMistakesThatCompileAreWarnedOf(t *testing.T) {
	const text = `profiles:
  a: { method: semantic, ratio: 0.5, guard: { maxAttentionError: 30 } }
tenants:
  default:
    record: pages
    rules:
      - { match: { model: "^llama.*$" }, profile: a }
      - { match: { model: "llama-3.1*" }, profile: a }
  unknown: { record: text }
`
	set := compile(t, text)
	var got []string
	for _, w := range set.Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		"p.yaml:3: profiles.a.guard: maxAttentionError hardly tells how much is lost (docs/reference/policy.md); use maxFactsLost, such as 0.02 (old_guard)",
		"p.yaml:3: profiles.a.guard: maxAttentionError is a relative error: at 30 nothing is left of the output when the guard acts; start at 0.3 (guard)",
		"p.yaml:5: tenants.default: is a tenant of that name; tenants that no file names are called unknown (reserved)",
		`p.yaml:8: tenants.default.rules[0].match: model "^llama.*$" looks like a regular expression; it is a pattern where * stands for any text and ? for one character (pattern)`,
		"p.yaml:10: tenants.unknown.record: the console would keep pages of tenants that no file names (record)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if a, b := set.Record("default"), compile(t, "tenants: { acme: {} }").Record("acme"); a != policy.RecordPages || b != policy.RecordOff {
		t.Errorf("record: got %q and %q, want pages and off", a, b)
	}
}

func TestWarnings(t *testing.T) {
	const text = `profiles:
  quarter: { method: semantic, ratio: 0.25 }
  eighth: { method: semantic, ratio: 0.125 }
  half: { method: semantic, ratio: 0.5 }
  alone: { method: semantic, ratio: 0.5 }
  recent: { method: window, ratio: 0.25 }
defaults: { profile: half }
tenants:
  acme:
    rules:
      - { match: { model: "llama-3*", minTokens: 100 }, profile: quarter }
      - { match: { model: "bert" }, profile: recent }
      - { match: { model: "llama-3-8b", minTokens: 200, maxTokens: 300 }, profile: eighth }
      - { match: { model: "llama-3-8b", minTokens: 50 }, profile: half }
      - { profile: exact }
      - { match: { model: "qwen" }, profile: half }
  unknown:
    rules:
      - { match: { minTokens: 1000 }, profile: half }
`
	var got []string
	for _, w := range compile(t, text).Warnings() {
		got = append(got, w.String())
	}
	want := []string{
		"p.yaml:3: profiles.quarter.ratio: a ratio of 0.25 is lossy; start at 0.5 (lossy)",
		"p.yaml:4: profiles.eighth.ratio: a ratio of 0.125 loses facts; start at 0.5 (unsafe)",
		"p.yaml:6: profiles.alone: no rule and no default names this profile (unused)",
		"p.yaml:7: profiles.recent.method: window drops tokens: counts sum to less than the tokens given; an honest baseline, not recommended (evicts)",
		"p.yaml:7: profiles.recent.ratio: a ratio of 0.25 is lossy; start at 0.5 (lossy)",
		"p.yaml:14: tenants.acme.rules[2]: is never reached: rules[0] already matches requests for model llama-3* of at least 100 tokens (unreachable)",
		"p.yaml:17: tenants.acme.rules[5]: is never reached: rules[4] already matches every request (unreachable)",
		"p.yaml:18: tenants.unknown: tenants that no file names would be compressed by profile half, through defaults.profile (unnamed)",
		"p.yaml:20: tenants.unknown.rules[0]: tenants that no file names would be compressed by profile half (unnamed)",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if got := compile(t, "tenants: { unknown: { rules: [ { profile: exact } ] } }\ndefaults: { profile: balanced }").Warnings(); len(got) != 0 {
		t.Errorf("got %v, want no warnings", got)
	}
	var _ policy.Warning
}
