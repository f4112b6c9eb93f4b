package pipeline

import (
	"reflect"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/policy"
)

func TestOptionsAreThePresetAndWhatTheProfileSays(t *testing.T) {
	with := func(o compress.Options, change func(*compress.Options)) compress.Options {
		change(&o)
		return o
	}
	for text, want := range map[string]compress.Options{
		"method: none":     with(compress.Semantic(), func(o *compress.Options) { o.Ratio = 1 }),
		"method: semantic": compress.Semantic(),
		"method: paper":    compress.Paper(),
		"method: hybrid":   compress.Hybrid(),
		"method: window":   with(compress.Window(), func(o *compress.Options) { o.Recent = 0 }), // the compressor's own business
		"method: semantic, budget: equal, ratio: 0.25": with(compress.Semantic(), func(o *compress.Options) {
			o.Ratio, o.Budget, o.Shared, o.Exact, o.Regular = 0.25, compress.Equal, true, 0.5, true
		}),
		"method: semantic, budget: equal, regular: false, clusters: perHead": with(compress.Semantic(), func(o *compress.Options) {
			o.Budget, o.Exact = compress.Equal, 0.5
		}),
		"method: semantic, threshold: 0.9": with(compress.Semantic(), func(o *compress.Options) {
			o.Ratio, o.Budget, o.Threshold, o.Exact = 1, compress.Fixed, 0.9, 0
		}),
		"method: paper, chunk: { max: 32 }, fp8: true": with(compress.Paper(), func(o *compress.Options) {
			o.ChunkMax, o.FP8 = 32, compress.F8E4M3
		}),
		"method: uniform, fp8: true": with(compress.Uniform(), func(o *compress.Options) { o.FP8 = compress.F8E4M3 }),
		"method: keynorm, ratio: 0.25, protect: { sinks: 1, recent: 2, spans: [ { from: 8, to: 9 } ] }": with(compress.KeyNorm(), func(o *compress.Options) {
			o.Ratio, o.Sinks, o.Recent, o.Spans = 0.25, 1, 2, []compress.Span{{From: 8, To: 9}}
		}),
		"method: attention": compress.SnapKV(),
	} {
		set, err := policy.Compile(policy.Source{Name: "p", Data: []byte("{ apiVersion: semproxy.io/v1, profiles: { p: { " + text + " } } }")})
		if err != nil {
			t.Fatal(err)
		}
		p, _ := set.Profile("p")
		got := options(&p, false, 0)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
		if err := got.Check(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestEveryMethodHasAPreset(t *testing.T) {
	for _, m := range policy.Methods() {
		if presets[m] == nil {
			t.Errorf("method %s has no preset", m)
		}
	}
	if len(presets) != len(policy.Methods()) {
		t.Errorf("got %d presets, want %d", len(presets), len(policy.Methods()))
	}
}
