package policy_test

import (
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
)

func compileTenant(t *testing.T, tenant string) (*policy.Set, error) {
	t.Helper()
	return policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\ntenants:\n  acme: " + tenant + "\n")})
}

func TestWhatATenantMayCallAndHowItIsVerified(t *testing.T) {
	set, err := compileTenant(t, `{ routes: [ /v1/audio/transcriptions ], verify: { share: 0.1, maxChanged: 0.02 }, limits: { tokensPerHour: 5, tokensPerDay: 6, shadow: true, cachedTokenWeight: 0, reasoningTokenWeight: 2 } }`)
	if err != nil {
		t.Fatal(err)
	}
	if !set.Allows("acme", "/v1/audio/transcriptions") || set.Allows("acme", "/v1/audio") || set.Allows("globex", "/v1/audio/transcriptions") {
		t.Error("a tenant may call what its policy names, and nobody else")
	}
	if got := set.Verify("acme"); got != (policy.Verify{Share: 0.1, MaxChanged: 0.02}) || set.Verify("globex") != (policy.Verify{}) {
		t.Errorf("got %+v", got)
	}
	l := set.Limits("acme")
	if l.TokensPerHour != 5 || l.TokensPerDay != 6 || !l.Shadow {
		t.Errorf("got %+v", l)
	}
	if got := l.Weigh(100, 60, 10, 4); got != 100-60+10+4 {
		t.Errorf("weights: got %d, want 54", got)
	}
	if got := (&policy.Limits{}).Weigh(100, 60, 10, -1); got != 110 {
		t.Errorf("without weights: got %d, want 110", got)
	}
	other, err := compileTenant(t, `{ verify: { share: 0.2 } }`)
	if err != nil || other.Version() == set.Version() {
		t.Errorf("another way to verify: got version %s, %v, want another", other.Version(), err)
	}
	for tenant, want := range map[string]string{
		`{ verify: {} }`: "share", `{ verify: { share: 2 } }`: "share", `{ verify: { share: 0.1, maxChanged: 1 } }`: "maxChanged",
		`{ routes: [ v1/x ] }`: "routes[0]", `{ routes: [ /v1/../x ] }`: "routes[0]", `{ routes: [ "/v1/*" ] }`: "routes[0]", `{ routes: [ / ] }`: "routes[0]",
		`{ limits: { cachedTokenWeight: 2 } }`: "cachedTokenWeight", `{ limits: { reasoningTokenWeight: -1 } }`: "reasoningTokenWeight", `{ limits: { tokensPerDay: 0 } }`: "tokensPerDay",
	} {
		if _, err := compileTenant(t, tenant); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error about %s", tenant, err, want)
		}
	}
}
