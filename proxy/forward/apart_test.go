package forward_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/gate"
)

// Where another process decides pages, a request is compressed only if that process is there and decides as was decided here.
func TestPromptsStayExactWherePagesWouldNotBeCompressedAsDecided(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(`
apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5 } }
tenants: { acme: { rules: [ { match: { headers: { X-Tier: "gold*", X-Team: "*" } }, profile: half }, { profile: half } ] } }
`)})
	if err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, false)
	long := strings.Repeat("x", 200)
	for name, c := range map[string]struct {
		apart   bool
		away    string
		headers []string
		reason  gate.Reason
	}{
		"one process":               {headers: []string{"X-Tier: gold" + long, "X-Team: " + long}, reason: gate.Learning},
		"headers fit the pages":     {apart: true, headers: []string{"X-Tier: gold", "X-Team: a"}, reason: gate.Learning},
		"no rule looks at headers":  {apart: true, headers: []string{"X-Else: " + long}, reason: gate.Learning},
		"headers do not fit":        {apart: true, headers: []string{"X-Tier: gold" + long, "X-Team: " + long}, reason: gate.Away},
		"the other process is away": {apart: true, away: "it is away", reason: gate.Away},
	} {
		t.Run(name, func(t *testing.T) {
			s := startProxy(t, e.URL, func(f *forward.Config, _ *forward.ServerConfig) {
				f.Policy, f.Apart, f.NoPages = func() *policy.Set { return set }, c.apart, func() string { return c.away }
			})
			got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 900, ""), c.headers...)
			r := s.done(t)
			if got.status != 200 || r.Gate == nil || r.Gate.Reason != c.reason || r.Gate.Compress != (c.reason != gate.Away) {
				t.Errorf("got %d, %+v, want %s", got.status, r.Gate, c.reason)
			}
		})
	}
}
