package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

const acmeKey, globexKey = "sp-acme-0123456789abcdef0123", "sp-globex-0123456789abcdef01"

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func entry(t *testing.T, tenant, key string) string {
	t.Helper()
	hash, err := identity.HashKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return "  - { tenant: " + tenant + ", sha256: " + hash + " }\n"
}

func keys(t *testing.T) *identity.Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	writeFile(t, path, "keys:\n"+entry(t, "acme", acmeKey)+entry(t, "globex", globexKey))
	k, err := identity.OpenKeys(path, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// request is one from a peer with headers "Name: value".
func request(t *testing.T, peer string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/models", http.NoBody)
	r.RemoteAddr = peer
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// result is the tenant with how it was told, or the code of the refusal.
func result(r *identity.Resolver, req *http.Request) string {
	who, err := r.Resolve(req)
	var e *dialect.Error
	if errors.As(err, &e) {
		if e.Status != http.StatusUnauthorized {
			return "status of " + e.Code
		}
		return e.Code
	}
	return who.Tenant + " by " + who.By
}

func TestWhoIsWho(t *testing.T) {
	header, err := identity.NewHeader("X-Tenant", []string{"10.1.0.0/16", "fd00::/8"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := identity.New(identity.Config{Keys: keys(t), Header: header, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	open, err := identity.New(identity.Config{Keys: keys(t), Anonymous: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	const stranger, gateway = "192.0.2.1:5", "10.1.2.3:5"
	for _, c := range []struct {
		name    string
		r       *identity.Resolver
		peer    string
		headers []string
		want    string
	}{
		{"a key", all, stranger, []string{"Authorization: Bearer " + acmeKey}, "acme by key"},
		{"the scheme in small letters", all, stranger, []string{"Authorization: bearer " + globexKey}, "globex by key"},
		{"a key of another header", all, stranger, []string{"X-Api-Key: " + acmeKey}, "acme by key"},
		{"the same key twice", all, stranger, []string{"X-Api-Key: " + acmeKey, "Authorization: Bearer " + acmeKey}, "acme by key"},
		{"two keys", all, stranger, []string{"X-Api-Key: " + acmeKey, "Authorization: Bearer " + globexKey}, identity.CodeAmbiguous},
		{"two Authorization headers", all, stranger, []string{"Authorization: Bearer " + acmeKey, "Authorization: Bearer " + globexKey}, identity.CodeAmbiguous},
		{"no credential", all, stranger, nil, identity.CodeMissing},
		{"another scheme", all, stranger, []string{"Authorization: Basic " + acmeKey}, identity.CodeMissing},
		{"an empty key", all, stranger, []string{"Authorization: Bearer "}, identity.CodeMissing},
		{"an unknown key", all, stranger, []string{"Authorization: Bearer " + acmeKey + "x"}, identity.CodeUnknownKey},
		{"a token where none is taken", all, stranger, []string{"Authorization: Bearer a.b.c"}, identity.CodeUnknownKey},
		{"the header of a gateway", all, gateway, []string{"X-Tenant: initech"}, "initech by header"},
		{"a gateway of IPv4 in IPv6", all, "[::ffff:10.1.2.3]:5", []string{"X-Tenant: initech"}, "initech by header"},
		{"a gateway of IPv6", all, "[fd00::1]:5", []string{"X-Tenant: initech"}, "initech by header"},
		{"the header of a stranger", all, stranger, []string{"X-Tenant: initech"}, identity.CodeMissing},
		{"a stranger who says to be the gateway", all, stranger, []string{"X-Tenant: initech", "X-Forwarded-For: 10.1.2.3", "Forwarded: for=10.1.2.3", "X-Real-Ip: 10.1.2.3"}, identity.CodeMissing},
		{"the header of a stranger beside a key", all, stranger, []string{"X-Tenant: initech", "Authorization: Bearer " + acmeKey}, "acme by key"},
		{"the header twice", all, gateway, []string{"X-Tenant: a", "X-Tenant: b"}, identity.CodeAmbiguous},
		{"a tenant that is none", all, gateway, []string{"X-Tenant: a.b>"}, identity.CodeBadTenant},
		{"a gateway without the header", all, gateway, []string{"Authorization: Bearer " + acmeKey}, "acme by key"},
		{"a peer that is no address", all, "pipe", []string{"X-Tenant: initech"}, identity.CodeMissing},
		{"anonymous", open, stranger, nil, "dev by anonymous"},
		{"a key goes before anonymous", open, stranger, []string{"Authorization: Bearer " + acmeKey}, "acme by key"},
		{"a wrong key is not anonymous", open, stranger, []string{"Authorization: Bearer wrong"}, identity.CodeUnknownKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := result(c.r, request(t, c.peer, c.headers...)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	h := http.Header{"Authorization": {"a"}, "X-Api-Key": {"b"}, "X-Tenant": {"c"}, "Accept": {"d"}}
	if all.Strip(h); len(h) != 1 {
		t.Errorf("after Strip: got %v, want no credential", h)
	}
}

func TestACertificateIsTrustedByItsSubjectOnceItWasVerified(t *testing.T) {
	header, err := identity.NewHeader("x-tenant", nil, []string{"gateway.internal"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.New(identity.Config{Header: header})
	if err != nil {
		t.Fatal(err)
	}
	named := &x509.Certificate{Subject: pkix.Name{CommonName: "gateway.internal"}}
	byDNS := &x509.Certificate{DNSNames: []string{"gateway.internal"}}
	for name, c := range map[string]struct {
		state *tls.ConnectionState
		want  string
	}{
		"no certificate":         {&tls.ConnectionState{}, identity.CodeMissing},
		"not verified":           {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{named}}, identity.CodeMissing},
		"another subject":        {&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}, identity.CodeMissing},
		"listed by common name":  {&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{named}}}, "acme by header"},
		"listed by its DNS name": {&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{byDNS}}}, "acme by header"},
	} {
		req := request(t, "192.0.2.1:5", "X-Tenant: acme")
		req.TLS = c.state
		if got := result(r, req); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestKeysAreReadAgainAndABadFileKeepsTheLastGoodOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	now := time.Unix(1000, 0)
	writeFile(t, path, "keys:\n"+entry(t, "acme", acmeKey))
	k, err := identity.OpenKeys(path, quiet, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ text, acme, globex string }{
		{"keys:\n" + entry(t, "globex", globexKey), "", "globex"},
		{"keys: [", "", "globex"},
		{"keys:\n" + entry(t, "acme", acmeKey) + entry(t, "globex", globexKey), "acme", "globex"},
	} {
		writeFile(t, path, step.text)
		now = now.Add(time.Second)
		acme, _ := k.Tenant(acmeKey)
		globex, _ := k.Tenant(globexKey)
		if acme != step.acme || globex != step.globex {
			t.Errorf("after %q: got %q, %q, want %q, %q", step.text, acme, globex, step.acme, step.globex)
		}
	}
}

func TestBadFilesOfKeysAreToldWithoutTheirHashes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.yaml")
	good := strings.TrimSpace(entry(t, "acme", acmeKey))
	for name, c := range map[string]struct{ text, want string }{
		"no keys":       {"keys: []\n", ":1:1: keys: must have at least one entry"},
		"a plain key":   {"keys:\n  - { tenant: a, sha256: deadbeef }\n", ":2:18: keys[0].sha256: must be 64 hexadecimal digits"},
		"twice":         {"keys:\n  " + good + "\n  " + good + "\n", ":3:21: keys[1].sha256: is the same key as keys[0]"},
		"no tenant":     {"keys:\n  - { sha256: deadbeef }\n", ":2:5: keys[0].tenant: must be 1 to 64 letters"},
		"unknown field": {"keys:\n  - { tenat: a }\n", "unknown key"},
	} {
		writeFile(t, path, c.text)
		_, err := identity.OpenKeys(path, quiet, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "deadbeef") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestKeysThatCouldBeGuessedAreNotHashed(t *testing.T) {
	if _, err := identity.HashKey("hunter2"); err == nil {
		t.Error("a short key: got nil, want an error")
	}
	a, b := identity.NewKey(), identity.NewKey()
	if a == b || len(a) < 40 {
		t.Errorf("got %q and %q, want two long random keys", a, b)
	}
	if _, err := identity.HashKey(a); err != nil {
		t.Errorf("a new key: got %v, want nil", err)
	}
}

func TestNothingConfiguredIsRefused(t *testing.T) {
	if _, err := identity.New(identity.Config{}); err == nil {
		t.Error("got nil, want an error")
	}
	if _, err := identity.NewHeader("X-Tenant", nil, nil); err == nil {
		t.Error("a header that nobody is trusted with: got nil, want an error")
	}
	if _, err := identity.NewHeader("X-Tenant", []string{"10.0.0.1"}, nil); err == nil {
		t.Error("a peer that is no network: got nil, want an error")
	}
}
