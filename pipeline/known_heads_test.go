package pipeline_test

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

const knownModel = "Qwen/Qwen2.5-Coder-0.5B-Instruct"

const knownRules = `
apiVersion: semproxy.io/v1
profiles:
  eighth:  { method: weighted, ratio: 0.125 }
  alike:   { method: weighted, ratio: 0.125, headWeights: [[1]] }
  quarter: { method: weighted, ratio: 0.25 }
  layered: { method: weighted, ratio: 0.125, budget: layered }
  relaxes: { method: weighted, ratio: 0.125, guard: { maxAttentionError: 0.2, onViolation: relax } }
tenants:
  eighth:  { rules: [ { profile: eighth } ] }
  alike:   { rules: [ { profile: alike } ] }
  quarter: { rules: [ { profile: quarter } ] }
  layered: { rules: [ { profile: layered } ] }
  relaxes: { rules: [ { profile: relaxes } ] }
`

// ofModel is a page of the demo that says that it is of a model, from a layer on.
func ofModel(t *testing.T, model string, first int) []byte {
	t.Helper()
	p, err := page.Decode(demoPage(t, "kjv"), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	p.Model, p.LayerFirst = model, first
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// withImportance is the page, whose tokens are needed alike.
func withImportance(t *testing.T, blob []byte) []byte {
	t.Helper()
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for range p.Layers * p.KVHeads * p.Tokens {
		p.Importance = binary.LittleEndian.AppendUint32(p.Importance, math.Float32bits(1))
	}
	if blob, err = p.Append(nil); err != nil {
		t.Fatal(err)
	}
	return blob
}

// At small ratios the heads of a model that is known weigh what they were measured to, unless the profile says otherwise.
func TestKnownHeadsWeighWhatTheyWereMeasuredTo(t *testing.T) {
	r := newRigOf(t, knownRules, nil)
	known, cores := send(t, r, "eighth", ofModel(t, knownModel, 0))
	alike, even := send(t, r, "alike", ofModel(t, knownModel, 0))
	if known.HeadWeights != semconv.HeadWeightsModel || alike.HeadWeights != semconv.HeadWeightsNone {
		t.Fatalf("got weights of %q, and of %q where the profile wants none", known.HeadWeights, alike.HeadWeights)
	}
	if cores.Fidelity["head_weights"] != semconv.HeadWeightsModel {
		t.Errorf("the reply's fidelity is %v, want it to say that the model's weights were used", cores.Fidelity)
	}
	// The second head of the first layer weighs 31.6, the first .19.
	if got, was := cores.Head(0, 1).N-cores.Head(0, 0).N, even.Head(0, 1).N-even.Head(0, 0).N; got <= was {
		t.Errorf("head 0/1 has %d cores more than 0/0, and %d where all are alike", got, was)
	}
	for name, blob := range map[string][]byte{
		"another model": ofModel(t, "another/model", 0), "layers that it has not": ofModel(t, knownModel, 20), "another size": ofModel(t, "Qwen2.5-1.5B", 0),
	} {
		if got, _ := send(t, r, "eighth", blob); got.HeadWeights != semconv.HeadWeightsNone {
			t.Errorf("%s: got weights of %q", name, got.HeadWeights)
		}
	}
	if got, _ := send(t, r, "eighth", withImportance(t, ofModel(t, knownModel, 0))); got.HeadWeights != semconv.HeadWeightsNone {
		t.Errorf("a page with importance: got weights of %q", got.HeadWeights)
	}
	for _, tenant := range []string{"quarter", "layered"} {
		if got, _ := send(t, r, tenant, ofModel(t, knownModel, 0)); got.HeadWeights != semconv.HeadWeightsNone {
			t.Errorf("%s: got weights of %q", tenant, got.HeadWeights)
		}
	}
	relaxed, _ := send(t, r, "relaxes", ofModel(t, knownModel, 0))
	if relaxed.Guard != semconv.GuardRelaxed || relaxed.Ratio < 0.25 || relaxed.HeadWeights != semconv.HeadWeightsNone {
		t.Errorf("a guard that relaxed to %.3f (%s) has weights of %q, want none from .25 on", relaxed.Ratio, relaxed.Guard, relaxed.HeadWeights)
	}
}

// What is stored for a known model is not found by a program that does not know it, and stays where weights play no part.
func TestKnownHeadsArePartOfTheKey(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "test.yaml", Data: []byte(knownRules)})
	if err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]bool{"eighth": true, "alike": false, "quarter": false, "layered": false} {
		plan, _ := set.Profile(profile)
		d := policy.Decision{PolicyDigest: plan.Digest(), Plan: plan}
		if got := pipeline.Terms(&d, knownModel) != pipeline.Terms(&d, "another"); got != want {
			t.Errorf("%s: the model's name changes the key: %v, want %v", profile, got, want)
		}
	}
	files, err := store.OpenMemory(store.FilesOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	r := newRigOf(t, knownRules, func(c *pipeline.Config) { c.Store = files })
	first, _ := send(t, r, "eighth", ofModel(t, knownModel, 0))
	again, err := r.Compress(context.Background(), "eighth", ofModel(t, knownModel, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Release()
	if again.Outcome != semconv.OutcomeStored || again.Object != first.Object {
		t.Errorf("the same page again: %s %s, want %s stored", again.Outcome, again.Object, first.Object)
	}
}
