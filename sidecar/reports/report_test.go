package reports

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/recent"
)

// Whatever a policy may decide is read as it was written: a word or a span that its type refuses would lose the report.
func TestEveryDecisionTravels(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "demo.yaml", Data: policies.Demo}, policy.Source{Name: "more.yaml", Data: []byte(`
apiVersion: semproxy.io/v1
profiles:
  x-exact: { method: none }
  x-bits: { method: weighted, ratio: 0.25, bits: 4, headWeights: [[1]], guard: { maxFactsLost: 0.1, onViolation: report }, store: { ttl: 7d } }
  x-threshold: { method: semantic, threshold: 0.9, protect: { roles: [system], patterns: ["END"], spans: [ { from: 1, to: 4 } ] } }
  x-window: { method: window, ratio: 0.5 }
`)})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range set.Profiles() {
		plan, _ := set.Profile(name)
		at := time.Now().UTC().Round(0)
		want := &Report{
			Tenant: "acme", Model: "m", TraceID: "t", Decision: policy.Decision{Tenant: "acme", Profile: name, Plan: plan, RuleIndex: -1},
			Page: recent.Page{At: at, Sequence: "s", Measured: true, AttentionError: 0.25, PerLayer: []recent.Layer{{Layer: 1}}},
		}
		line, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decode(line[:len(line)-1]); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	refused := &Report{Tenant: "acme", Page: recent.Page{Error: "page.truncated"}}
	line, err := encode(refused)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decode(line[:len(line)-1]); err != nil || !reflect.DeepEqual(got, refused) {
		t.Errorf("a page that was refused before it was decided: got %+v, %v, want %+v", got, err, refused)
	}
}

// What is taken for a report is one: it names a tenant, holds no more than its line, and can be written again.
func FuzzDecode(f *testing.F) {
	line, err := encode(&Report{Tenant: "acme", Page: recent.Page{Sequence: "s", PerLayer: []recent.Layer{{Layer: 1}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line[:len(line)-1])
	f.Add([]byte(`{"tenant":"a","decision":{"tenant":"a","plan":{"method":"none","store":{"ttl":"1h"}}},"page":{"at":"2026-01-02T03:04:05Z"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := decode(line)
		if err != nil {
			return
		}
		if r.Tenant == "" || len(r.Page.PerLayer) > len(line) {
			t.Errorf("%s was taken, for %q with %d layers", line, r.Tenant, len(r.Page.PerLayer))
		}
		if _, err := encode(r); err != nil && !errors.Is(err, errTooLong) {
			t.Errorf("%s was taken, and cannot be written again: %v", line, err)
		}
	})
}
