package forward_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
)

func TestRulesThatLookAtHeaders(t *testing.T) {
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(`
apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5 } }
tenants: { acme: { rules: [ { match: { headers: { X-Tier: "gold*" } }, profile: half }, { profile: exact } ] } }
`)})
	if err != nil {
		t.Fatal(err)
	}
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.Policy = func() *policy.Set { return set } })
	for _, c := range []struct{ header, profile string }{
		{"X-Tier: gold-7", "half"}, {"X-Tier: silver", "exact"}, {"X-Other: gold", "exact"}, {"X-Tier: gold" + strings.Repeat("x", 300), "exact"},
	} {
		s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 200, ""), c.header)
		r := s.done(t)
		if r.Decision == nil || r.Decision.Profile != c.profile {
			t.Errorf("%.30s: got %+v, want profile %s", c.header, r.Decision, c.profile)
		}
		// The page plane decides the request's pages by the same headers.
		if got := s.ring.Headers("acme", r.Object)["X-Tier"]; (got == "gold-7") != (c.profile == "half") || r.Headers["X-Tier"] != got {
			t.Errorf("%.30s: got %q and %v remembered", c.header, got, r.Headers)
		}
		if body, want := e.last(t).body, `"headers":{"X-Tier":"gold-7"}`; strings.Contains(body, want) != (c.profile == "half") {
			t.Errorf("%.30s: the engine got %.300s, want %s only for gold", c.header, body, want)
		}
		if got := s.ring.Headers("globex", r.Object); got != nil {
			t.Errorf("of another tenant: got %v, want nothing", got)
		}
	}
}
