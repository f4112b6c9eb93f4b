package pipeline_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

func TestGuard(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv_facts")
	for _, c := range []struct{ tenant, guard, outcome string }{
		{"holds", semconv.GuardHeld, semconv.OutcomeCompressed},
		{"relaxes", semconv.GuardRelaxed, semconv.OutcomeCompressed},
		{"strict", semconv.GuardPassthrough, semconv.OutcomeExact},
		{"passes", semconv.GuardPassthrough, semconv.OutcomeExact},
		{"wpasses", semconv.GuardPassthrough, semconv.OutcomeExact},
		{"reports", semconv.GuardViolated, semconv.OutcomeCompressed},
		{"half", semconv.GuardOff, semconv.OutcomeCompressed},
	} {
		rep, cores := send(t, r, c.tenant, blob)
		if rep.Guard != c.guard || rep.Outcome != c.outcome || cores.Fidelity["guard"] != c.guard {
			t.Errorf("%s: guard %q, outcome %q, reply says %q; want %q and %q (error %.3f at ratio %.3f)", c.tenant, rep.Guard, rep.Outcome,
				cores.Fidelity["guard"], c.guard, c.outcome, rep.AttentionError, rep.Ratio)
		}
		if c.guard == semconv.GuardRelaxed && (rep.AttentionError > 0.25 || rep.Ratio <= 0.125) {
			t.Errorf("relaxed to ratio %.3f with error %.3f, want more than 0.125 and at most 0.25", rep.Ratio, rep.AttentionError)
		}
		if c.guard == semconv.GuardPassthrough && !strings.Contains(rep.Reason, "attention error") {
			t.Errorf("%s: the reason %q does not say why", c.tenant, rep.Reason)
		}
	}
}

// What a page loses depends on its model: the policy's own curve decides, where the curve of an unknown model would not let it pass.
func TestTheGuardReadsThePolicysLossCurve(t *testing.T) {
	r := newRig(t, nil)
	blob := demoPage(t, "kjv_facts")
	if rep, _ := send(t, r, "judged", blob); rep.Guard != semconv.GuardPassthrough {
		t.Errorf("an unknown model's page at half of its tokens: guard %q, want it passed through", rep.Guard)
	}
	rep, cores := send(t, r, "ownjudge", blob)
	if rep.Guard != semconv.GuardHeld || rep.LookupError <= 0 || rep.LookupError > 0.96 {
		t.Fatalf("guard %q at a lookup error of %v, want it held", rep.Guard, rep.LookupError)
	}
	if want := rep.LookupError / 20; rep.FactsLost < want-1e-9 || rep.FactsLost > want+1e-9 || cores.Fidelity["facts_lost"] == "" {
		t.Errorf("%v of the facts are lost, want %v by the policy's curve; the page says %q", rep.FactsLost, want, cores.Fidelity["facts_lost"])
	}
}

func TestGuardWithoutQueriesSaysThatItMeasuredNothing(t *testing.T) {
	r := newRig(t, nil)
	p, _ := page.Decode(demoPage(t, "kjv"), page.DefaultLimits())
	p.Q, p.QDType, p.QHeads, p.Window = nil, 0, 0, 0
	blob, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	rep, cores := send(t, r, "relaxes", blob)
	if rep.Guard != semconv.GuardUnmeasured || rep.Measured {
		t.Errorf("guard %q, measured %v", rep.Guard, rep.Measured)
	}
	if _, ok := cores.Fidelity["attention_error"]; ok {
		t.Error("the reply names an attention error that nobody measured")
	}
	if rep.ValueError <= 0 || cores.Fidelity["value_error"] == "" {
		t.Errorf("the values' error is %v in the report and %q in the reply, want both", rep.ValueError, cores.Fidelity["value_error"])
	}
}
