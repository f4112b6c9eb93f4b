package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

// accounts is how a shared NATS keeps tenants apart: the server itself puts the account's name into the subject.
const accounts = `
accounts {
  SIDECAR {
    users: [ { user: sidecar, password: s } ]
    exports: [ { service: "kv.*.v1.compress", account_token_position: 2 } ]
  }
  acme {
    users: [ { user: a, password: a } ]
    imports: [
      { service: { account: SIDECAR, subject: "kv.acme.v1.compress" } }
      { service: { account: SIDECAR, subject: "kv.acme.v1.compress" }, to: "kv.v1.compress" }
    ]
  }
  globex { users: [ { user: g, password: g } ] }
}
`

func TestAccountsKeepTenantsApart(t *testing.T) {
	config := filepath.Join(t.TempDir(), "accounts.conf")
	if err := os.WriteFile(config, []byte(accounts), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	startProcess(t, address, "-c", config)
	login := func(name string) *nats.Conn {
		nc, err := nats.Connect("nats://"+address, nats.UserInfo(name, name[:1]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	serve(t, login("sidecar"), handlerFunc(func(_ context.Context, tenant string, _ []byte) (transport.Reply, error) {
		return transport.Reply{Body: []byte(tenant)}, nil
	}), nil)

	acme := login("a")
	c, err := New(acme, Options{Tenant: "acme", MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := c.Compress(within(t), nil); err != nil || string(got.Body) != "acme" {
		t.Errorf("own subject: got %v %v, want served as acme", got, err)
	}
	if got, err := acme.RequestWithContext(within(t), "kv.v1.compress", nil); err != nil || string(got.Data) != "acme" {
		t.Errorf("subject without a tenant: got %v %v, want served as acme", got, err)
	}
	for user, subject := range map[string]string{"a": "kv.globex.v1.compress", "g": "kv.acme.v1.compress"} {
		if _, err := login(user).RequestWithContext(within(t), subject, nil); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("%s on %s: got %v, want %v", user, subject, err, nats.ErrNoResponders)
		}
	}
}
