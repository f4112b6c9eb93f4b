package policy_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

const rules = `
defaults: { profile: balanced }
profiles:
  archive: { method: semantic, ratio: 0.4, store: { ttl: 24h } }
tenants:
  acme:
    limits: { pagesPerSecond: 2000, inFlightBytes: 256MiB, storedBytes: 20GiB }
    rules:
      - { name: long, match: { model: "llama-3*", minTokens: 4096 }, profile: archive }
      - { match: { model: "*/qwen?", minTokens: 10, maxTokens: 20 }, profile: archive }
      - { match: { maxTokens: 511 }, profile: exact }
  empty: {}
`

func TestDecideTakesTheFirstRuleThatMatches(t *testing.T) {
	set := compile(t, rules)
	tests := []struct {
		name    string
		request policy.Request
		profile string
		rule    string
		source  string
		index   int
		reason  string
	}{
		{
			"model and length", policy.Request{Tenant: "acme", Model: "llama-3-8b", Tokens: 9000}, "archive", "tenants.acme.rules[0]", "p.yaml:10", 0,
			"rule tenants.acme.rules[0] (long) of p.yaml:10 sends requests for model llama-3* of at least 4096 tokens to profile archive",
		},
		{"at the lower bound", policy.Request{Tenant: "acme", Model: "llama-3", Tokens: 4096}, "archive", "tenants.acme.rules[0]", "p.yaml:10", 0, ""},
		{"below it", policy.Request{Tenant: "acme", Model: "llama-3", Tokens: 4095}, "balanced", "defaults.profile", "p.yaml:3", -1, `no rule of tenant acme matches, so defaults.profile applies: "balanced"`},
		{"a star crosses slashes", policy.Request{Tenant: "acme", Model: "hub/org/qwen3", Tokens: 20}, "archive", "tenants.acme.rules[1]", "p.yaml:11", 1, ""},
		{"above the upper bound", policy.Request{Tenant: "acme", Model: "org/qwen3", Tokens: 21}, "exact", "tenants.acme.rules[2]", "p.yaml:12", 2, ""},
		{"case of the model matters", policy.Request{Tenant: "acme", Model: "Llama-3", Tokens: 9000}, "balanced", "defaults.profile", "p.yaml:3", -1, ""},
		{"no tokens", policy.Request{Tenant: "acme"}, "exact", "tenants.acme.rules[2]", "p.yaml:12", 2, ""},
		{"tenant without rules", policy.Request{Tenant: "empty", Tokens: 1}, "balanced", "defaults.profile", "p.yaml:3", -1, `tenant empty has no rules, so defaults.profile applies: "balanced"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := set.Decide(tt.request)
			if err != nil {
				t.Fatalf("got error %v, want none", err)
			}
			if d.Profile != tt.profile || d.Rule != tt.rule || d.Source != tt.source || d.RuleIndex != tt.index {
				t.Errorf("got %s by %s at %s (%d), want %s by %s at %s (%d)", d.Profile, d.Rule, d.Source, d.RuleIndex, tt.profile, tt.rule, tt.source, tt.index)
			}
			if tt.reason != "" && d.Reason != tt.reason {
				t.Errorf("got reason %q, want %q", d.Reason, tt.reason)
			}
			if d.Tenant != tt.request.Tenant || d.Version != set.Version() || d.PolicyDigest != d.Plan.Digest() || d.Reason == "" {
				t.Errorf("got an incomplete decision %+v", d)
			}
			steps := set.Explain(tt.request)
			last := steps[len(steps)-1]
			if !last.Matched || last.Rule != d.Rule || last.Profile != d.Profile {
				t.Errorf("got last step %+v, want the one that decided, %s", last, d.Rule)
			}
		})
	}
}

func TestTenantsThatNobodyNamed(t *testing.T) {
	t.Run("are denied", func(t *testing.T) {
		set := compile(t, rules)
		_, err := set.Decide(policy.Request{Tenant: "evil", Tokens: 1})
		var denied *policy.DeniedError
		if !errors.As(err, &denied) || denied.Code() != "policy.denied" || denied.Tenant != "evil" {
			t.Errorf("got %v, want policy.denied", err)
		}
		if name, ok := set.Resolve("evil"); ok {
			t.Errorf("got resolved as %q, want denied", name)
		}
		if got := set.Limits("evil"); got != (policy.Limits{}) {
			t.Errorf("got limits %+v, want none", got)
		}
		if got := set.Explain(policy.Request{Tenant: "evil"}); len(got) != 1 || got[0].Matched {
			t.Errorf("got %+v, want one step that says why", got)
		}
	})
	t.Run("or served by the rules of unknown", func(t *testing.T) {
		set := compile(t, "tenants: { unknown: { limits: { pagesPerSecond: 5 }, rules: [ { profile: exact } ] } }")
		d, err := set.Decide(policy.Request{Tenant: "evil", Tokens: 1})
		if err != nil || d.Tenant != "evil" || d.Rule != "tenants.unknown.rules[0]" || d.Plan.Method != policy.MethodNone {
			t.Errorf("got %+v, %v; want the rule of unknown for tenant evil", d, err)
		}
		if !strings.HasPrefix(d.Reason, "no file names the tenant: ") {
			t.Errorf("got reason %q, want it to say that nobody named the tenant", d.Reason)
		}
		if name, ok := set.Resolve("evil"); name != "unknown" || !ok {
			t.Errorf("got %q, %v; want unknown, true", name, ok)
		}
		if got := set.Limits("evil").PagesPerSecond; got != 5 {
			t.Errorf("got %v pages per second, want 5", got)
		}
		if _, err := set.Decide(policy.Request{}); err == nil {
			t.Error("a request without tenant: got no error, want policy.denied")
		}
		if got, want := len(set.Explain(policy.Request{Tenant: "evil"})), 2; got != want {
			t.Errorf("got %d steps, want %d", got, want)
		}
	})
}

func TestWithoutDefaultsNothingIsCompressed(t *testing.T) {
	set := compile(t, "tenants: { acme: { rules: [ { match: { minTokens: 9 }, profile: balanced } ] } }")
	d, err := set.Decide(policy.Request{Tenant: "acme", Tokens: 8})
	want := "no rule of tenant acme matches, and there is no defaults.profile, so nothing is compressed"
	if err != nil || d.Plan.Method != policy.MethodNone || d.Profile != "exact" || d.Rule != "builtin.exact" || d.Reason != want {
		t.Errorf("got %+v, %v; want exact because %q", d, err, want)
	}
}

func TestLimits(t *testing.T) {
	set := compile(t, rules)
	want := policy.Limits{PagesPerSecond: 2000, InFlightBytes: 256 << 20, StoredBytes: 20 << 30}
	if got := set.Limits("acme"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := set.Limits("empty"); got != (policy.Limits{}) {
		t.Errorf("got %+v, want none", got)
	}
}

func TestSetListsWhatItHolds(t *testing.T) {
	set := compile(t, rules)
	if got, want := set.Tenants(), []string{"acme", "empty"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got tenants %v, want %v", got, want)
	}
	if got, want := set.Profiles(), []string{"archive", "balanced", "exact"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got profiles %v, want %v", got, want)
	}
	got := set.Rules("acme")
	if len(got) != 4 || got[1].Match != "requests for model */qwen? of 10 to 20 tokens" || got[3].Rule != "defaults.profile" {
		t.Errorf("got rules %+v, want three and the default", got)
	}
	if got := set.Rules("evil"); got != nil {
		t.Errorf("got rules %v for a denied tenant, want none", got)
	}
}

func TestExplainSaysWhyEachRuleMissed(t *testing.T) {
	var got []string
	for _, s := range compile(t, rules).Explain(policy.Request{Tenant: "acme", Model: "llama-3-8b", Tokens: 600}) {
		got = append(got, s.Rule+": "+s.Why)
	}
	want := []string{
		"tenants.acme.rules[0]: 600 tokens are fewer than minTokens 4096",
		`tenants.acme.rules[1]: model "llama-3-8b" does not match "*/qwen?"`,
		"tenants.acme.rules[2]: 600 tokens are more than maxTokens 511",
		`defaults.profile: no rule of tenant acme matches, so defaults.profile applies: "balanced"`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestExplainSaysWhyARuleMatched(t *testing.T) {
	set := compile(t, rules)
	for _, tt := range []struct {
		request policy.Request
		want    string
	}{
		{policy.Request{Tenant: "acme", Model: "llama-3-8b", Tokens: 9000}, `model "llama-3-8b" matches "llama-3*", 9000 tokens reach minTokens 4096`},
		{policy.Request{Tenant: "acme", Model: "a/qwen2", Tokens: 15}, `model "a/qwen2" matches "*/qwen?", 15 tokens reach minTokens 10, 15 tokens are within maxTokens 20`},
		{policy.Request{Tenant: "acme", Tokens: 5}, "5 tokens are within maxTokens 511"},
	} {
		steps := set.Explain(tt.request)
		if got := steps[len(steps)-1].Why; got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	set := compile(t, rules)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := set.Decide(policy.Request{Tenant: "acme", Model: "llama-3-8b", Tokens: 600}); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}

// How long does a request wait for its decision?
func BenchmarkDecide(b *testing.B) {
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\n" + rules)})
	if err != nil {
		b.Fatal(err)
	}
	for name, request := range map[string]policy.Request{
		"first rule": {Tenant: "acme", Model: "llama-3-8b", Tokens: 9000},
		"default":    {Tenant: "acme", Model: "meta/llama-3-8b-instruct", Tokens: 9000},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Decide(request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestLimitsOfTheProxy(t *testing.T) {
	set := compile(t, "tenants: { acme: { limits: { requestsPerSecond: 2.5, tokensPerMinute: 60000, concurrentRequests: 8, queuedRequests: 16 } } }")
	want := policy.Limits{RequestsPerSecond: 2.5, TokensPerMinute: 60000, ConcurrentRequests: 8, QueuedRequests: 16}
	if got := set.Limits("acme"); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	_, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(`apiVersion: semproxy.io/v1
tenants:
  acme:
    limits:
      requestsPerSecond: 0
      tokensPerMinute: -1
      concurrentRequests: 0
      queuedRequests: -1
`)})
	for _, part := range []string{
		"p.yaml:5:7: tenants.acme.limits.requestsPerSecond: must be larger than 0, got 0",
		"p.yaml:6:7: tenants.acme.limits.tokensPerMinute: must be larger than 0, got -1",
		"p.yaml:7:7: tenants.acme.limits.concurrentRequests: must be at least 1, got 0",
		"p.yaml:8:7: tenants.acme.limits.queuedRequests: must be at least 1, got -1",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want %s", err, part)
		}
	}
}
