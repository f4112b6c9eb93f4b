package policy_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

const headerRules = `
apiVersion: semproxy.io/v1
tenants:
  acme:
    rules:
      - match: { headers: { x-tier: "gold*", user-agent: "*" } }
        profile: balanced
      - match: { headers: { X-Tier: silver }, minTokens: 10 }
        profile: balanced
      - profile: exact
  globex: {}
`

func TestRulesMatchHeaders(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(headerRules)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(set.Headers("acme"), " "); got != "User-Agent X-Tier" || set.Headers("globex") != nil || set.Headers("nobody") != nil {
		t.Errorf("got %q, %v, want the names that rules look at", got, set.Headers("globex"))
	}
	for _, c := range []struct {
		name    string
		headers map[string]string
		rule    int
		why     string // of the first rule
	}{
		{"both", map[string]string{"X-Tier": "gold-1", "User-Agent": "curl"}, 0, `header User-Agent matches "*", header X-Tier matches "gold*"`},
		{"one is not there", map[string]string{"X-Tier": "gold"}, 2, `header User-Agent does not match "*"`},
		{"another value", map[string]string{"X-Tier": "silver", "User-Agent": "curl"}, 1, `header X-Tier does not match "gold*"`},
		{"none", nil, 2, `header User-Agent does not match "*"`},
	} {
		r := policy.Request{Tenant: "acme", Model: "m", Tokens: 20, Header: func(name string) string { return c.headers[name] }}
		d, err := set.Decide(r)
		if err != nil || d.RuleIndex != c.rule {
			t.Errorf("%s: got rule %d, %v, want %d", c.name, d.RuleIndex, err, c.rule)
		}
		if got := set.Explain(r)[0].Why; got != c.why {
			t.Errorf("%s: got %q, want %q", c.name, got, c.why)
		}
	}
	if d, err := set.Decide(policy.Request{Tenant: "acme", Tokens: 20}); err != nil || d.RuleIndex != 2 {
		t.Errorf("a page of no request: got rule %d, %v, want the last", d.RuleIndex, err)
	}
	if got := set.Rules("acme")[0].Match; got != "every request with User-Agent: * and X-Tier: gold*" {
		t.Errorf("in words: got %q", got)
	}
	if got := set.Warnings(); len(got) != 0 {
		t.Errorf("got %v, want no rule to hide another", got)
	}
}

func TestHeadersThatNoRuleMayLookAt(t *testing.T) {
	for _, name := range []string{
		"Authorization", "Cookie", "X-Api-Key", "X-Auth-Request-User", "X-Amz-Security-Token", "X-Forwarded-For", "X-Real-IP", "Host", "X", "X-a b", "x-My-Secret",
	} {
		text := strings.Replace(headerRules, "x-tier", `"`+name+`"`, 1)
		_, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(text)})
		if err == nil || !strings.Contains(err.Error(), "p.yaml:6:29: ") || !strings.Contains(err.Error(), "credential") {
			t.Errorf("%s: got %v, want it refused with its place", name, err)
		}
	}
	for text, want := range map[string]string{
		`{ x-tier: "" }`:           "1 to 256 bytes",
		`{ x-tier: a, X-Tier: b }`: "twice",
		`{ X-1: a, X-2: a, X-3: a, X-4: a, X-5: a, X-6: a, X-7: a, X-8: a, X-9: a }`: "at most 8",
	} {
		_, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(strings.Replace(headerRules, `{ X-Tier: silver }`, text, 1))})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestRolesArePartOfWhatAPageBecomes(t *testing.T) {
	digest := func(roles string) string {
		text := "apiVersion: semproxy.io/v1\nprofiles: { p: { method: weighted, protect: { roles: " + roles + " } } }\ntenants: { a: { rules: [ { profile: p } ] } }\n"
		set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		d, _ := set.Decide(policy.Request{Tenant: "a"})
		return d.PolicyDigest
	}
	if digest("[tool, system]") != digest("[system, tool, system]") || digest("[system]") == digest("[]") {
		t.Error("roles: want equal digests for equal sets, and other ones for others")
	}
	_, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\nprofiles: { p: { method: weighted, protect: { roles: [robot] } } }\n")})
	if err == nil || !strings.Contains(err.Error(), "system, developer, user, assistant, tool") {
		t.Errorf("got %v, want the words that there are", err)
	}
}
