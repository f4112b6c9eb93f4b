package pipeline_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

const codedRules = `
apiVersion: semproxy.io/v1
profiles:
  near:   { method: none, bits: 4 }
  closer: { method: none, bits: 8 }
  half:   { method: weighted, ratio: 0.5 }
  eighth: { method: weighted, ratio: 0.5, bits: 4, assign: true }
  strict: { method: keynorm, ratio: 0.125, bits: 4, guard: { maxAttentionError: 0.001, onViolation: pass } }
tenants:
  near:   { rules: [ { profile: near } ] }
  closer: { rules: [ { profile: closer } ] }
  half:   { rules: [ { profile: half } ] }
  eighth: { rules: [ { profile: eighth } ] }
  strict: { rules: [ { profile: strict } ] }
`

func TestBitsMakeEveryPageSmallerAndSayWhatTheyCost(t *testing.T) {
	r := newRigOf(t, codedRules, nil)
	for _, name := range configs.Pages() {
		blob := demoPage(t, name)
		in, err := page.Decode(blob, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		half, _ := send(t, r, "half", blob)
		for tenant, want := range map[string]struct {
			bits         int
			share, error float64 // at most, of the page's keys and values and of the attention
		}{
			"near": {4, 0.30, 0.15}, "closer": {8, 0.55, 0.01}, "eighth": {4, 0.30, half.AttentionError + 0.15},
		} {
			rep, cores := send(t, r, tenant, blob)
			if rep.Outcome != semconv.OutcomeCompressed || cores.Coded == nil || cores.Coded.Bits != want.bits || cores.DType != in.DType {
				t.Fatalf("%s/%s: outcome %s, coded %v, type %s; want codes of %d bits for %s", name, tenant, rep.Outcome, cores.Coded != nil, cores.DType, want.bits, in.DType)
			}
			if got := float64(len(cores.Coded.K)+len(cores.Coded.V)+len(cores.Coded.KScale)+len(cores.Coded.VScale)) / float64(len(in.K)+len(in.V)); got > want.share {
				t.Errorf("%s/%s: got %.3f of the bytes, want at most %v", name, tenant, got, want.share)
			}
			if !rep.Measured || rep.AttentionError <= 0 || rep.AttentionError > want.error {
				t.Errorf("%s/%s: got the attention error %.4f, want more than 0 and at most %v", name, tenant, rep.AttentionError, want.error)
			}
			t.Logf("%s/%s: attention error %.4f, %d bytes of %d", name, tenant, rep.AttentionError, rep.BytesOut, rep.BytesIn)

			again, stored := send(t, r, tenant, blob)
			if again.Outcome != semconv.OutcomeStored || !bytes.Equal(stored.K, cores.K) || !bytes.Equal(stored.V, cores.V) || !bytes.Equal(stored.Coded.K, cores.Coded.K) {
				t.Errorf("%s/%s: sent again: outcome %s, or other cores than before", name, tenant, again.Outcome)
			}
			kept, err := r.Get(context.Background(), tenant, rep.Object)
			if err != nil || len(kept) > rep.BytesOut+512 {
				t.Errorf("%s/%s: the store has %d bytes (%v), want about the reply's %d", name, tenant, len(kept), err, rep.BytesOut)
			}
		}
		if rep, cores := send(t, r, "strict", blob); rep.Outcome != semconv.OutcomeExact || cores.Coded != nil || !bytes.Equal(cores.K, in.K) {
			t.Errorf("%s: passed through: outcome %s, coded %v; want the page's own keys", name, rep.Outcome, cores.Coded != nil)
		}
	}
}
