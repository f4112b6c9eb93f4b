package policy_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

var update = flag.Bool("update", false, "write what the tests got as what they want")

// compile makes a policy from the text after apiVersion.
func compile(t *testing.T, text string) *policy.Set {
	t.Helper()
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\n" + text)})
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	return set
}

// Every file of testdata/bad has beside it the problems that a person sees.
func TestCompileNamesEveryProblem(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d bad examples and error %v, want some", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set, err := policy.Compile(policy.Source{Name: filepath.Base(file), Data: data})
			if err == nil || set != nil {
				t.Fatalf("got set %v and error %v, want only an error", set, err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestCompileMergesFiles(t *testing.T) {
	source := func(name, text string) policy.Source {
		return policy.Source{Name: name, Data: []byte("apiVersion: semproxy.io/v1\n" + text)}
	}
	set, err := policy.Compile(
		source("tenants.yaml", "tenants: { acme: { rules: [ { profile: small } ] } }"),
		source("profiles.yaml", "profiles: { small: { method: semantic, ratio: 0.4 } }\ndefaults: { profile: small }"),
	)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	d, err := set.Decide(policy.Request{Tenant: "acme"})
	if err != nil || d.Profile != "small" || d.Plan.Ratio != 0.4 || d.Source != "tenants.yaml:2" {
		t.Errorf("got %+v, %v; want profile small with ratio 0.4 from tenants.yaml:2", d, err)
	}

	_, err = policy.Compile(
		source("a.yaml", "defaults: { profile: exact }\nprofiles:\n  small: { method: none }\ntenants:\n  acme: {}"),
		source("b.yaml", "defaults: { profile: exact }\nprofiles:\n  small: { method: none }\ntenants:\n  acme: {}\n  globex: { rules: [ { profile: smal } ] }"),
		source("c.yaml", "oops: 1"),
	)
	want := `b.yaml:2:1: defaults: is set twice, first at a.yaml:2
b.yaml:4:3: profiles.small: profile is defined twice, first at a.yaml:4
b.yaml:6:3: tenants.acme: tenant is defined twice, first at a.yaml:6
b.yaml:7:24: tenants.globex.rules[0].profile: there is no profile "smal", did you mean "small"?
c.yaml:2:1: oops: unknown key, known are apiVersion, defaults, profiles, tenants`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if got := len(strict.Problems(err)); got != 5 {
		t.Errorf("got %d problems, want 5", got)
	}

	if _, err := policy.Compile(); err == nil {
		t.Error("no sources: got no error, want one")
	}
}

func TestExamplePolicies(t *testing.T) {
	for name, data := range map[string][]byte{"example.yaml": policies.Example, "demo.yaml": policies.Demo} {
		if _, err := policy.Compile(policy.Source{Name: name, Data: data}); err != nil {
			t.Errorf("%s: got error %v, want none", name, err)
		}
	}
	example, err := policy.Compile(policy.Source{Name: "example.yaml", Data: policies.Example})
	if err != nil {
		t.Fatal(err)
	}
	if got := example.Warnings(); len(got) != 0 {
		t.Errorf("example: got warnings %v, want none", got)
	}
	demo, err := policy.Compile(policy.Source{Name: "demo.yaml", Data: policies.Demo})
	if err != nil {
		t.Fatal(err)
	}
	protect := policy.Protect{Sinks: 4, Recent: 32}
	for tenant, want := range map[string]policy.Profile{
		"acme": {
			Method: policy.MethodSemantic, Ratio: 0.5, Budget: policy.BudgetAdaptive, Clusters: policy.ClustersShared,
			Exact: 0.25, Chunk: policy.Chunk{Min: 64, Max: 96}, Protect: protect, Assign: true,
		},
		"globex": {
			Method: policy.MethodSemantic, Ratio: 0.25, Budget: policy.BudgetEqual, Clusters: policy.ClustersShared,
			Exact: 0.5, Chunk: policy.Chunk{Min: 64, Max: 96}, Protect: protect,
			Guard: policy.Guard{MaxFactsLost: 0.1, OnViolation: "report"}, Assign: true,
		},
		"initech": {
			Method: policy.MethodPaper, Ratio: 0.5, Budget: policy.BudgetEqual, Clusters: policy.ClustersPerHead,
			Exact: 0, Chunk: policy.Chunk{Min: 16, Max: 64}, Protect: protect, Assign: true,
		},
		"hooli": {Method: policy.MethodNone, Ratio: 1},
	} {
		d, err := demo.Decide(policy.Request{Tenant: tenant, Model: "tinylm", Tokens: 864})
		if err != nil || d.PolicyDigest != want.Digest() {
			t.Errorf("%s: got %+v, %v; want %+v", tenant, d.Plan, err, want)
		}
	}
}

// The annotated example says that its profile every-knob writes out the defaults.
func TestExampleWritesOutTheDefaults(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "example.yaml", Data: policies.Example})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := set.Profile("every-knob")
	got.Protect.Spans, got.Protect.Patterns, got.Protect.Roles = nil, nil, nil
	want, _ := compile(t, "profiles: { a: { method: weighted } }").Profile("a")
	if got.Digest() != want.Digest() {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
