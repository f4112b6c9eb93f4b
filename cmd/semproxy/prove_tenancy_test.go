package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy/prove"
)

// Between tenants with users of their own every attack fails; where anybody may speak as any tenant, they are found to succeed.
func TestProveTenancy(t *testing.T) {
	t.Run("accounts", func(t *testing.T) {
		s := configured(t, "accounts", 1)
		startProcess(t, "--nats-url", s.url, "--nats-nkey-file", s.options("SEMPROXY").NKeyFile, "--policy-path", writeSmallPolicy(t))
		out, err := cli(t, "prove", "--tenant", "acme", "--nats-url", s.url, "--nats-nkey-file", s.options("acme").NKeyFile,
			"--tenancy", "globex", "--attacker-nkey-file", s.options("globex").NKeyFile, "--max-ratio", "1", "--json", "--timeout", "60s")
		wantVerdicts(t, out, err, true)
	})
	t.Run("no users", func(t *testing.T) {
		url := natsServer(t)
		startProcess(t, "--nats-url", url, "--policy-path", writeSmallPolicy(t))
		out, err := cli(t, "prove", "--tenant", "acme", "--nats-url", url, "--tenancy", "globex", "--json", "--timeout", "60s")
		wantVerdicts(t, out, err, false)
		if err == nil || !strings.Contains(err.Error(), prove.CodeTenancy) {
			t.Errorf("got %v, want %s", err, prove.CodeTenancy)
		}
	})
}

func wantVerdicts(t *testing.T, out string, err error, held bool) {
	t.Helper()
	var got struct {
		OK      bool            `json:"ok"`
		Attacks []prove.Verdict `json:"attacks"`
	}
	if at := strings.IndexByte(out, '{'); at < 0 || json.NewDecoder(strings.NewReader(out[at:])).Decode(&got) != nil {
		t.Fatalf("got %s (%v), want JSON", out, err)
	}
	if got.OK != held || len(got.Attacks) < 12 {
		t.Errorf("ok: got %v of %d attacks, want %v: %s", got.OK, len(got.Attacks), held, out)
	}
	for _, v := range got.Attacks {
		// Without users these still hold: names of objects are of a tenant.
		own := strings.HasPrefix(v.Attack, "get the other tenant's object by its name") || strings.HasPrefix(v.Attack, "ask which") || strings.HasPrefix(v.Attack, "send its page")
		if (held || own) && !v.Held {
			t.Errorf("%s: %s", v.Attack, v.Got)
		}
	}
}
