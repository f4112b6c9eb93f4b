package pipeline_test

import (
	"context"
	"math"
	"testing"

	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

const methodRules = `
apiVersion: semproxy.io/v1
profiles:
  hybrid:    { method: hybrid, ratio: 0.25, assign: true }
  uniform:   { method: uniform, ratio: 0.25, assign: true }
  window:    { method: window, ratio: 0.25, assign: true }
  keynorm:   { method: keynorm, ratio: 0.25, assign: true }
  attention: { method: attention, ratio: 0.25, assign: true }
  regular:   { method: semantic, budget: equal, ratio: 0.25 }
  loose:     { method: semantic, budget: equal, ratio: 0.25, regular: false }
  plain:     { method: semantic, ratio: 0.5 }
  small:     { method: semantic, ratio: 0.5, fp8: true }
  smallest:  { method: window, ratio: 0.25, fp8: true }
  whole:     { method: semantic, ratio: 1, fp8: true }
  passes:    { method: keynorm, ratio: 0.125, fp8: true, guard: { maxAttentionError: 0.001, onViolation: pass } }
tenants:
  hybrid:    { rules: [ { profile: hybrid } ] }
  uniform:   { rules: [ { profile: uniform } ] }
  window:    { rules: [ { profile: window } ] }
  keynorm:   { rules: [ { profile: keynorm } ] }
  attention: { rules: [ { profile: attention } ] }
  regular:   { rules: [ { profile: regular } ] }
  loose:     { rules: [ { profile: loose } ] }
  plain:     { rules: [ { profile: plain } ] }
  small:     { rules: [ { profile: small } ] }
  smallest:  { rules: [ { profile: smallest } ] }
  whole:     { rules: [ { profile: whole } ] }
  passes:    { rules: [ { profile: passes } ] }
`

func TestEveryMethodAccountsForEveryToken(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	for tenant, evicts := range map[string]bool{
		"hybrid": false, "uniform": false, "window": true, "keynorm": true, "attention": true,
	} {
		for _, name := range configs.Pages() {
			rep, cores := send(t, r, tenant, demoPage(t, name)) // decoding checks counts, assign and dropped
			if rep.Ratio > 0.25 || rep.Ratio < 0.24 {
				t.Errorf("%s on %s keeps %.4f, want 0.25", tenant, name, rep.Ratio)
			}
			want := 0.0
			if evicts {
				want = (1 - rep.Ratio) * float64(cores.Tokens)
			}
			if (cores.Dropped != nil) != evicts || math.Abs(rep.Dropped-want) > 1e-6 {
				t.Errorf("%s on %s: reply says dropped %v, report %.3f per head; want %v and %.3f", tenant, name, cores.Dropped != nil, rep.Dropped, evicts, want)
			}
			again, stored := send(t, r, tenant, demoPage(t, name))
			if again.Outcome != semconv.OutcomeStored || string(stored.Dropped) != string(cores.Dropped) || math.Abs(again.Dropped-rep.Dropped) > 1e-6 {
				t.Errorf("%s on %s from the store: outcome %q, dropped %.3f, want stored, %.3f", tenant, name, again.Outcome, again.Dropped, rep.Dropped)
			}
		}
	}
}

func TestMethodsThatLookAtQueriesRefuseAPageWithoutThem(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	p, _ := page.Decode(demoPage(t, "kjv"), page.DefaultLimits())
	p.Q, p.QDType, p.QHeads, p.Window = nil, 0, 0, 0
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"attention", "hybrid"} {
		_, err := r.Compress(context.Background(), tenant, blob)
		if got := pipeline.CodeOf(err); err == nil || got != "page.no_queries" {
			t.Errorf("%s: code %q (%v), want page.no_queries", tenant, got, err)
		}
	}
	for _, tenant := range []string{"window", "keynorm", "uniform"} {
		if rep, _ := send(t, r, tenant, blob); rep.Measured {
			t.Errorf("%s: measured without queries", tenant)
		}
	}
}

func TestRegularHeadsAreAllOfOneSize(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	for _, name := range configs.Pages() {
		_, cores := send(t, r, "regular", demoPage(t, name))
		want, less := cores.Tokens/4, false
		_, loose := send(t, r, "loose", demoPage(t, name))
		for plane := range cores.Layers * cores.KVHeads {
			if got := cores.Head(plane/cores.KVHeads, plane%cores.KVHeads).N; got != want {
				t.Errorf("%s, head %d: got %d cores, want %d", name, plane, got, want)
			}
			got := loose.Head(plane/cores.KVHeads, plane%cores.KVHeads).N
			if less = less || got < want; got > want {
				t.Errorf("%s, head %d, not regular: got %d cores, want at most %d", name, plane, got, want)
			}
		}
		if !less {
			t.Errorf("%s: without regular no head has fewer than %d cores: the test shows nothing", name, want)
		}
	}
}

func TestFP8HalvesTheBytesAndKeepsTheValues(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	for _, name := range configs.Pages() {
		blob := demoPage(t, name)
		wide, plain := send(t, r, "plain", blob)
		rep, small := send(t, r, "small", blob)
		if plain.DType != page.F16 || small.DType != page.F8E4M3 || 2*len(small.K) != len(plain.K) || 2*len(small.V) != len(plain.V) {
			t.Fatalf("%s: got %v of %d bytes, want half of %v of %d", name, small.DType, len(small.K), plain.DType, len(plain.K))
		}
		if string(small.Counts) != string(plain.Counts) || string(small.Positions) != string(plain.Positions) {
			t.Errorf("%s: FP8 gave other cores", name)
		}
		for plane := range small.Layers * small.KVHeads {
			l, h := plane/small.KVHeads, plane%small.KVHeads
			got, want := small.Head(l, h), plain.Head(l, h)
			near(t, name, got.K, math.Float32frombits(word(small.KScale, plane)), want.K)
			near(t, name, got.V, math.Float32frombits(word(small.VScale, plane)), want.V)
		}
		if rep.AttentionError < wide.AttentionError/2 || rep.AttentionError > wide.AttentionError+0.05 {
			t.Errorf("%s: attention error %.4f, want near that of F16, %.4f", name, rep.AttentionError, wide.AttentionError)
		}
		again, stored := send(t, r, "small", blob)
		if again.Outcome != semconv.OutcomeStored || stored.DType != page.F8E4M3 || string(stored.KScale) != string(small.KScale) {
			t.Errorf("%s: outcome %q in %v from the store, want stored in F8_E4M3 with its scales", name, again.Outcome, stored.DType)
		}
	}
}

// near holds 8-bit values against 16-bit ones: three bits of mantissa, half a step of rounding.
func near(t *testing.T, name string, got []byte, scale float32, want []byte) {
	t.Helper()
	for i, b := range got {
		x, y := e4m3(b)*float64(scale), half(uint16(want[2*i])|uint16(want[2*i+1])<<8)
		if math.Abs(x-y) > math.Abs(y)/16+float64(scale)/1024+1e-9 {
			t.Fatalf("%s: value %d: got %v, want %v", name, i, x, y)
		}
	}
}

func e4m3(b byte) float64 {
	sign, exp, man := 1-2*float64(b>>7), int(b>>3&15), float64(b&7)
	if exp == 0 {
		return sign * man * math.Ldexp(1, -9)
	}
	return sign * (1 + man/8) * math.Ldexp(1, exp-7)
}

func half(b uint16) float64 {
	sign, exp, man := 1-2*float64(b>>15), int(b>>10&31), float64(b&1023)
	if exp == 0 {
		return sign * man * math.Ldexp(1, -24)
	}
	return sign * (1 + man/1024) * math.Ldexp(1, exp-15)
}

func TestFP8StacksOnOtherMethodsAndOnNone(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	for _, tenant := range []string{"smallest", "whole"} {
		rep, cores := send(t, r, tenant, demoPage(t, "kjv"))
		if cores.DType != page.F8E4M3 || rep.Outcome != semconv.OutcomeCompressed {
			t.Errorf("%s: outcome %q in %v, want compressed in F8_E4M3", tenant, rep.Outcome, cores.DType)
		}
	}
}

func TestAPageThatTheGuardPassesIsItself(t *testing.T) {
	r := newRigOf(t, methodRules, nil)
	blob := demoPage(t, "kjv")
	in, _ := page.Decode(blob, page.DefaultLimits())
	rep, cores := send(t, r, "passes", blob)
	if rep.Guard != semconv.GuardPassthrough || rep.Dropped != 0 || cores.Dropped != nil {
		t.Errorf("guard %q, dropped %v", rep.Guard, rep.Dropped)
	}
	if cores.DType != in.DType || string(cores.K) != string(in.K) || string(cores.V) != string(in.V) {
		t.Errorf("got %v, K equal %v, V equal %v; want the page's own bytes", cores.DType, string(cores.K) == string(in.K), string(cores.V) == string(in.V))
	}
}
