package schema_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/policy/schema"
)

const committed = "../../configs/policy.schema.json"

func TestCommittedSchemaIsCurrent(t *testing.T) {
	got, err := os.ReadFile(committed)
	if err != nil {
		t.Fatal(err)
	}
	want, err := schema.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("configs/policy.schema.json is stale: run go generate ./policy/schema")
	}
}

// validator compiles the committed file, so that what editors read is what is tested.
func validator(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := os.ReadFile(committed)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schema.ID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schema.ID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExamplesPass(t *testing.T) {
	s := validator(t)
	for name, data := range map[string][]byte{"example.yaml": policies.Example, "demo.yaml": policies.Demo} {
		var doc any
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); err != nil {
			t.Errorf("%s: got %v, want it to pass", name, err)
		}
	}
	for _, text := range []string{
		"{apiVersion: semproxy.io/v1}",
		"{apiVersion: semproxy.io/v1, profiles: {exact: {method: none}, a: {method: none, store: {ttl: 7d}}, b: {method: none, bits: 4}}}",
		"{apiVersion: semproxy.io/v1, profiles: {a: {method: semantic, threshold: 0.9, clusters: shared, chunk: {min: 1, max: 1024}}}}",
		"{apiVersion: semproxy.io/v1, profiles: {a: {method: semantic, budget: equal, regular: false, fp8: true}, b: {method: paper, regular: true}}}",
		"{apiVersion: semproxy.io/v1, profiles: {a: {method: hybrid, exact: 0.4, protect: {patterns: [Bethel, 'a b']}}}}",
		"{apiVersion: semproxy.io/v1, profiles: {a: {method: window, ratio: 0.25, fp8: true, assign: true, protect: {sinks: 1, spans: [{from: 1, to: 2}]}}}}",
		"{apiVersion: semproxy.io/v1, profiles: {a: {method: uniform, protect: {recent: 8}, guard: {maxAttentionError: 0.1}}, b: {method: keynorm}, c: {method: attention}}}",
		"{apiVersion: semproxy.io/v1, tenants: {a_1: {limits: {pagesPerSecond: 0.5, inFlightBytes: 1024}, rules: []}}}",
	} {
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(doc); err != nil {
			t.Errorf("%s: got %v, want it to pass", text, err)
		}
	}
}

// What a schema cannot see: the text around the values, and what two places of a file say to each other.
var onlyCompile = map[string]bool{
	"second_document": true, "order": true, "unknown_profile": true,
}

func TestBadExamplesFail(t *testing.T) {
	s := validator(t)
	files, err := filepath.Glob("../testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d bad examples and error %v, want some", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		err = yaml.Unmarshal(data, &doc) // tabs and duplicate keys end here
		if err == nil {
			err = s.Validate(doc)
		}
		if failed := err != nil; failed == onlyCompile[name] {
			t.Errorf("%s: got error %v, want an error: %v", name, err, !onlyCompile[name])
		}
	}
}

// The bad examples hold several mistakes each; here every rule of the schema is seen alone.
func TestEveryRuleBites(t *testing.T) {
	s := validator(t)
	profile := func(text string) string { return "profiles: {a: {method: semantic, " + text + "}}" }
	tests := map[string]string{
		"unknown section":        "profile: {}",
		"unknown profile key":    profile("ratoi: 0.5"),
		"ratio above one":        profile("ratio: 1.5"),
		"ratio of zero":          profile("ratio: 0"),
		"ratio as text":          profile("ratio: half"),
		"exact of one":           profile("exact: 1"),
		"threshold of -1":        profile("threshold: -1"),
		"ratio and threshold":    profile("ratio: 0.5, threshold: 0.5"),
		"budget and threshold":   profile("budget: equal, threshold: 0.5"),
		"exact and threshold":    profile("exact: 0.5, threshold: 0.5"),
		"unknown method":         "profiles: {a: {method: semantc}}",
		"no method":              "profiles: {a: {ratio: 0.5}}",
		"none with ratio":        "profiles: {a: {method: none, ratio: 0.5}}",
		"none with assign":       "profiles: {a: {method: none, assign: false}}",
		"none with fp8":          "profiles: {a: {method: none, fp8: true}}",
		"regular and adaptive":   profile("budget: adaptive, regular: true"),
		"regular alone":          profile("regular: true"),
		"regular and threshold":  "profiles: {a: {method: paper, threshold: 0.5, regular: true}}",
		"regular adaptive paper": "profiles: {a: {method: paper, budget: adaptive, regular: false}}",
		"fp8 as text":            profile("fp8: e4m3"),
		"five bits":              profile("bits: 5"),
		"empty pattern":          profile("protect: {patterns: ['']}"),
		"long pattern":           profile("protect: {patterns: [" + strings.Repeat("x", 129) + "]}"),
		"too many patterns":      profile("protect: {patterns: [" + strings.Repeat("x,", 33) + "]}"),
		"pattern as number":      profile("protect: {patterns: [7]}"),
		"window with budget":     "profiles: {a: {method: window, budget: equal}}",
		"window with recent":     "profiles: {a: {method: window, protect: {recent: 1}}}",
		"window without sinks":   "profiles: {a: {method: window, protect: {sinks: 0}}}",
		"keynorm with clusters":  "profiles: {a: {method: keynorm, clusters: shared}}",
		"uniform with chunk":     "profiles: {a: {method: uniform, chunk: {max: 9}}}",
		"attention with exact":   "profiles: {a: {method: attention, exact: 0.5}}",
		"uniform with threshold": "profiles: {a: {method: uniform, threshold: 0.5}}",
		"keynorm with regular":   "profiles: {a: {method: keynorm, regular: true}}",
		"exact that merges":      "profiles: {exact: {method: semantic}}",
		"name of a profile":      "profiles: {'a b': {method: none}}",
		"unknown budget":         profile("budget: even"),
		"unknown clusters":       profile("clusters: per_head"),
		"chunk too long":         profile("chunk: {max: 1025}"),
		"negative sinks":         profile("protect: {sinks: -1}"),
		"span without end":       profile("protect: {spans: [{from: 1}]}"),
		"span below zero":        profile("protect: {spans: [{from: -1, to: 2}]}"),
		"guard of zero":          profile("guard: {maxAttentionError: 0}"),
		"guard of percents":      profile("guard: {maxFactsLost: 2}"),
		"unknown violation":      profile("guard: {maxAttentionError: 1, onViolation: stop}"),
		"ttl":                    profile("store: {ttl: tomorrow}"),
		"empty ttl":              profile("store: {ttl: ''}"),
		"assign as number":       profile("assign: 1"),
		"tenant with a dot":      "tenants: {a.b: {}}",
		"limit of zero":          "tenants: {a: {limits: {pagesPerSecond: 0}}}",
		"size without unit":      "tenants: {a: {limits: {inFlightBytes: 256 megs}}}",
		"size below one":         "tenants: {a: {limits: {storedBytes: 0}}}",
		"rule without profile":   "tenants: {a: {rules: [{name: x}]}}",
		"override in a rule":     "tenants: {a: {rules: [{profile: exact, ratio: 0.5}]}}",
		"negative minTokens":     "tenants: {a: {rules: [{profile: exact, match: {minTokens: -1}}]}}",
		"fraction of a token":    "tenants: {a: {rules: [{profile: exact, match: {maxTokens: 1.5}}]}}",
		"empty model":            "tenants: {a: {rules: [{profile: exact, match: {model: ''}}]}}",
		"unknown default":        "defaults: {profil: exact}",
		"other version":          "apiVersion: semproxy.io/v2",
		"rules that are no list": "tenants: {a: {rules: {profile: exact}}}",
	}
	for name, text := range tests {
		if !strings.HasPrefix(text, "apiVersion") {
			text = "apiVersion: semproxy.io/v1\n" + text
		}
		var doc any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		var invalid *jsonschema.ValidationError
		if err := s.Validate(doc); !errors.As(err, &invalid) {
			t.Errorf("%s: got %v, want it to fail", name, err)
		}
	}
}
