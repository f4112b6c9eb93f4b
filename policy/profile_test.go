package policy_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

func profile(t *testing.T, text string) policy.Profile {
	t.Helper()
	p, ok := compile(t, "profiles:\n  p: "+text).Profile("p")
	if !ok {
		t.Fatal("got no profile p")
	}
	return p
}

func TestProfileDefaultsAreTheBestRowsMeasured(t *testing.T) {
	near := 0.9
	chunk, protect := policy.Chunk{Min: 64, Max: 96}, policy.Protect{Sinks: 4, Recent: 32}
	for text, want := range map[string]policy.Profile{
		"{ method: none }": {Method: "none", Ratio: 1},
		"{ method: semantic }": {
			Method: "semantic", Ratio: 0.5, Budget: "adaptive", Clusters: "perHead", Exact: 0.25, Chunk: chunk, Protect: protect,
		},
		"{ method: semantic, budget: equal }": {
			Method: "semantic", Ratio: 0.5, Budget: "equal", Clusters: "shared", Exact: 0.5, Regular: true, Chunk: chunk, Protect: protect,
		},
		"{ method: semantic, budget: equal, clusters: perHead, exact: 0, regular: false }": {
			Method: "semantic", Ratio: 0.5, Budget: "equal", Clusters: "perHead", Exact: 0, Chunk: chunk, Protect: protect,
		},
		"{ method: paper }": {
			Method: "paper", Ratio: 0.5, Budget: "equal", Clusters: "perHead", Exact: 0, Chunk: policy.Chunk{Min: 16, Max: 64}, Protect: protect,
		},
		"{ method: paper, regular: true, fp8: true }": {
			Method: "paper", Ratio: 0.5, Budget: "equal", Clusters: "perHead", Exact: 0, Regular: true, FP8: true,
			Chunk: policy.Chunk{Min: 16, Max: 64}, Protect: protect,
		},
		"{ method: paper, threshold: 0.9 }": {
			Method: "paper", Ratio: 1, Threshold: &near, Budget: "equal", Clusters: "perHead", Chunk: policy.Chunk{Min: 16, Max: 64}, Protect: protect,
		},
		"{ method: hybrid }": {
			Method: "hybrid", Ratio: 0.5, Budget: "adaptive", Clusters: "perHead", Exact: 0.25, Chunk: chunk, Protect: protect,
		},
		"{ method: hybrid, budget: equal }": {
			Method: "hybrid", Ratio: 0.5, Budget: "equal", Clusters: "shared", Exact: 0.5, Regular: true, Chunk: chunk, Protect: protect,
		},
		"{ method: uniform }":                {Method: "uniform", Ratio: 0.5, Protect: protect},
		"{ method: keynorm, fp8: true }":     {Method: "keynorm", Ratio: 0.5, FP8: true, Protect: protect},
		"{ method: none, bits: 4 }":          {Method: "none", Ratio: 1, Bits: 4},
		"{ method: uniform, bits: 8 }":       {Method: "uniform", Ratio: 0.5, Bits: 8, Protect: protect},
		"{ method: uniform, bits: 16 }":      {Method: "uniform", Ratio: 0.5, Protect: protect},
		"{ method: attention, ratio: 0.25 }": {Method: "attention", Ratio: 0.25, Protect: protect},
		"{ method: window }":                 {Method: "window", Ratio: 0.5, Protect: policy.Protect{Sinks: 4}},
		"{ method: window, protect: { sinks: 1, patterns: [ b, a, b ] }, guard: { maxAttentionError: 0.1 }, assign: true }": {
			Method: "window", Ratio: 0.5, Protect: policy.Protect{Sinks: 1, Patterns: []string{"a", "b"}},
			Guard: policy.Guard{MaxAttentionError: 0.1, OnViolation: "relax"}, Assign: true,
		},
		"{ method: semantic, threshold: 0.9 }": {
			Method: "semantic", Ratio: 1, Threshold: &near, Budget: "adaptive", Clusters: "perHead", Chunk: chunk, Protect: protect,
		},
		"{ method: semantic, protect: { sinks: 0, spans: [ {from: 9, to: 12}, {from: 1, to: 4}, {from: 3, to: 9} ] }, guard: { maxAttentionError: 0.1 }, store: { ttl: 1d }, assign: true }": {
			Method: "semantic", Ratio: 0.5, Budget: "adaptive", Clusters: "perHead", Exact: 0.25, Chunk: chunk,
			Protect: policy.Protect{Recent: 32, Spans: []policy.Span{{From: 1, To: 12}}},
			Guard:   policy.Guard{MaxAttentionError: 0.1, OnViolation: "relax"},
			Store:   policy.Store{TTL: 24 * hour}, Assign: true,
		},
	} {
		if got := profile(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestWeightedHasDefaultsOfItsOwn(t *testing.T) {
	for text, want := range map[string]policy.Profile{
		"{ method: weighted }":                  {Budget: policy.BudgetAdaptive, Clusters: policy.ClustersPerHead, Exact: 0.5},
		"{ method: weighted, budget: layered }": {Budget: policy.BudgetLayered, Clusters: policy.ClustersPerHead, Exact: 0.5},
		"{ method: weighted, budget: equal }":   {Budget: policy.BudgetEqual, Clusters: policy.ClustersPerHead, Exact: 0.5, Regular: true},
	} {
		got := profile(t, text)
		if got.Budget != want.Budget || got.Clusters != want.Clusters || got.Exact != want.Exact || got.Regular != want.Regular || got.Protect.Recent != 16 {
			t.Errorf("%s: got %+v, want %+v with 16 recent tokens", text, got, want)
		}
	}
	_, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\nprofiles: { a: { method: weighted, threshold: 0.9 } }\n")})
	if err == nil || !strings.Contains(err.Error(), "profiles.a.threshold: has no meaning with method weighted") {
		t.Errorf("got %v, want the threshold refused", err)
	}
}

func TestBuiltinProfiles(t *testing.T) {
	set := compile(t, "tenants: {}")
	written := profile(t, "{ method: weighted, ratio: 0.5 }")
	if got, ok := set.Profile("balanced"); !ok || got.Digest() != written.Digest() {
		t.Errorf("got %+v, want %+v", got, written)
	}
	if got, ok := set.Profile("exact"); !ok || got.Method != policy.MethodNone {
		t.Errorf("got %+v, want method none", got)
	}
	if got, _ := compile(t, "profiles: { balanced: { method: semantic, ratio: 0.6 } }").Profile("balanced"); got.Ratio != 0.6 {
		t.Errorf("got ratio %v, want the file's 0.6", got.Ratio)
	}
}

func TestHeadWeightsAreOnesOfAModel(t *testing.T) {
	if got := profile(t, "{ method: weighted, budget: layered, headWeights: [[1, 0.5], [64, 1]] }").HeadWeights; !reflect.DeepEqual(got, [][]float64{{1, 0.5}, {64, 1}}) {
		t.Errorf("got %v, want what is written", got)
	}
	for text, want := range map[string]string{
		"method: semantic, headWeights: [[1]]":                "headWeights: has no meaning with method semantic, which weighs no merges",
		"method: window, headWeights: [[1]]":                  "headWeights: has no meaning with method window, which does not cluster",
		"method: weighted, budget: equal, headWeights: [[1]]": "headWeights: has no meaning with budget equal",
		"method: weighted, headWeights: []":                   "headWeights: must have a list for each layer of the model, 1 to 512, got 0",
		"method: weighted, headWeights: [[1, 2], [1]]":        "headWeights[1]: must have a number for each KV head, as many as the first layer and 1 to 1024, got 1",
		"method: weighted, headWeights: [[1, 0]]":             "headWeights[0][1]: must be in [1/64,64], got 0",
		"method: weighted, headWeights: [[.nan]]":             "headWeights[0][0]: must be",
		"method: weighted, headWeights: [1, 2]":               "headWeights[0]: must be a list",
	} {
		_, err := policy.Compile(policy.Source{Name: "p", Data: []byte("{ apiVersion: semproxy.io/v1, profiles: { a: { " + text + " } } }")})
		if err == nil || !strings.Contains(err.Error(), "profiles.a."+want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// The digest is part of an object's key: it has to change with everything that changes the result, and with nothing else.
func TestDigestFollowsWhatChangesTheResult(t *testing.T) {
	const base = "{ method: semantic }"
	digest := profile(t, base).Digest()
	if len(digest) != 64 {
		t.Errorf("got digest %q, want 64 hexadecimal digits", digest)
	}
	for _, same := range []string{
		"{ method: semantic, ratio: 0.50, budget: adaptive }", "{ method: semantic, store: { ttl: 9h } }",
		"{ method: semantic, protect: { sinks: 4 } }", "{ method: semantic, fp8: false }", "{ method: semantic, bits: 16 }",
		"{ method: semantic, protect: { patterns: [] } }",
	} {
		if got := profile(t, same).Digest(); got != digest {
			t.Errorf("%s: got another digest than %s, want the same", same, base)
		}
	}
	if a, b := profile(t, "{ method: weighted, headWeights: [[1]] }").Digest(), profile(t, "{ method: weighted, headWeights: [[1, 1], [1, 1]] }").Digest(); a != b {
		t.Errorf("head weights of 1 in two shapes give two digests, want one: all heads are alike")
	}
	seen := map[string]string{digest: base}
	for _, other := range []string{
		"{ method: none }", "{ method: paper }", "{ method: semantic, ratio: 0.4 }", "{ method: semantic, threshold: 0.5 }",
		"{ method: semantic, threshold: 0.6 }", "{ method: semantic, budget: equal }", "{ method: semantic, clusters: shared }",
		"{ method: semantic, exact: 0.3 }", "{ method: semantic, chunk: { min: 32 } }", "{ method: semantic, chunk: { max: 128 } }",
		"{ method: semantic, protect: { sinks: 5 } }", "{ method: semantic, protect: { recent: 33 } }",
		"{ method: semantic, protect: { spans: [ { from: 1, to: 9 } ] } }", "{ method: semantic, guard: { maxAttentionError: 0.1 } }",
		"{ method: semantic, guard: { maxAttentionError: 0.1, onViolation: pass } }", "{ method: semantic, assign: true }",
		"{ method: semantic, fp8: true }", "{ method: semantic, bits: 4 }", "{ method: semantic, bits: 8 }", "{ method: none, bits: 8 }", "{ method: semantic, budget: equal, regular: false }", "{ method: paper, regular: true }",
		"{ method: weighted }", "{ method: weighted, headWeights: [[1]] }", "{ method: weighted, headWeights: [[1, 2]] }", "{ method: weighted, headWeights: [[2, 1]] }",
		"{ method: hybrid }", "{ method: uniform }", "{ method: window }", "{ method: keynorm }", "{ method: attention }",
		"{ method: semantic, protect: { patterns: [ a ] } }", "{ method: semantic, protect: { patterns: [ a, b ] } }",
	} {
		got := profile(t, other).Digest()
		if first, dup := seen[got]; dup {
			t.Errorf("%s: got the digest of %s, want its own", other, first)
		}
		seen[got] = other
	}
}

// What was stored under these profiles before there were more methods is found again.
func TestDigestsOfEarlierVersionsStay(t *testing.T) {
	for text, want := range map[string]string{
		"{ method: semantic }":                                "6b68ef2b67eb2d13b22ee8138f2fb188878c5a0c91ac7737c4c8b9e325b976d3",
		"{ method: paper }":                                   "beb71e72237057cef49d2c03aeb89ef9cd7112d9c3ea46af54d7c5ec0564be2a",
		"{ method: semantic, threshold: 0.9 }":                "375708bc79d96fb87d1afc9019f21a77f2e21a79ded055487c7b3f5dc9b19e28",
		"{ method: semantic, budget: equal, regular: false }": "10f0406a6a0412da83c59c28508d757b30dbe0a66ce6f95d50b87ab0a1e9369f",
	} {
		if got := profile(t, text).Digest(); got != want {
			t.Errorf("%s: got digest %s, want %s", text, got, want)
		}
	}
}

func TestVersionFollowsTheMeaningOfTheFiles(t *testing.T) {
	const base = "tenants: { acme: { limits: { pagesPerSecond: 1 }, rules: [ { match: { minTokens: 1 }, profile: balanced } ] } }"
	version := compile(t, base).Version()
	if got := compile(t, "# a comment\n"+base+"\n").Version(); got != version {
		t.Errorf("a comment: got another version, want the same")
	}
	for what, text := range map[string]string{
		"a limit":     "tenants: { acme: { limits: { pagesPerSecond: 2 }, rules: [ { match: { minTokens: 1 }, profile: balanced } ] } }",
		"a condition": "tenants: { acme: { limits: { pagesPerSecond: 1 }, rules: [ { match: { minTokens: 2 }, profile: balanced } ] } }",
		"a profile":   "tenants: { acme: { limits: { pagesPerSecond: 1 }, rules: [ { match: { minTokens: 1 }, profile: exact } ] } }",
		"a ttl":       base + "\nprofiles: { balanced: { method: semantic, store: { ttl: 1h } } }",
		"a default":   base + "\ndefaults: { profile: balanced }",
		"a tenant":    base[:len(base)-1] + ", globex: {} }",
	} {
		if got := compile(t, text).Version(); got == version {
			t.Errorf("%s changed: got the same version, want another", what)
		}
	}
}
