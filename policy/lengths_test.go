package policy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

func TestLengthsAreTheDecisionsOfASequenceAsItGrows(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(`
apiVersion: semproxy.io/v1
profiles:
  a: { method: weighted, ratio: 0.9 }
  b: { method: weighted, ratio: 0.5 }
  c: { method: weighted, ratio: 0.25 }
  d: { method: weighted, ratio: 0.1 }
tenants:
  acme:
    rules:
      - { match: { maxTokens: 99 }, profile: a }
      - { match: { minTokens: 1000, headers: { X-Tier: gold } }, profile: d }
      - { match: { minTokens: 1000, model: "llama*" }, profile: c }
      - { match: { minTokens: 100, maxTokens: 199 }, profile: exact }
      - { profile: b }
  flat: { rules: [ { profile: b } ] }
`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, tenant, model, header string
		tokens                      int
		want                        string
	}{
		{"one rule for all lengths", "flat", "llama", "", 500, "b"},
		{"nearest shorter ones first, then longer ones", "acme", "llama", "", 500, "b exact a c"},
		{"the longest", "acme", "llama", "", 5000, "c b exact a"},
		{"the shortest", "acme", "llama", "", 1, "a exact b c"},
		{"another model never meets a rule", "acme", "qwen", "", 5000, "b exact a"},
		{"a header chooses at some lengths", "acme", "llama", "gold", 5000, "d b exact a"},
	} {
		r := policy.Request{Tenant: c.tenant, Model: c.model, Tokens: c.tokens, Header: func(string) string { return c.header }}
		all, err := set.Lengths(r)
		if err != nil {
			t.Fatalf("%s: got %v, want nil", c.name, err)
		}
		var got []string
		for _, d := range all {
			got = append(got, d.Profile)
		}
		if own, _ := set.Decide(r); strings.Join(got, " ") != c.want || all[0].Rule != own.Rule {
			t.Errorf("%s: got %v, want %s, the request's own first", c.name, got, c.want)
		}
	}
	var denied *policy.DeniedError
	if _, err := set.Lengths(policy.Request{Tenant: "nobody"}); !errors.As(err, &denied) {
		t.Errorf("a tenant without rules: got %v, want a DeniedError", err)
	}
}
