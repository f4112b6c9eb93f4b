package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/semproxy/semproxy/proxy/identity"
)

// issuer signs tokens with a key of each kind.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{r, e}
}

// keySet is the issuer's public keys as it publishes them.
func (i *issuer) keySet(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: i.rsa.Public(), KeyID: "r", Algorithm: "RS256", Use: "sig"},
		{Key: i.ec.Public(), KeyID: "e"},
		{Key: i.ec.Public(), KeyID: "enc", Use: "enc"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		options = options.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	us, other := newIssuer(t), newIssuer(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	writeFile(t, path, us.keySet(t))
	source, err := identity.OpenKeySet(path, quiet, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r, err := identity.New(identity.Config{
		Tokens: &identity.Tokens{Source: source, Issuer: "https://idp", Audience: "semproxy", Claim: "org.id"},
		Keys:   keys(t), Logger: quiet, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{
			"iss": "https://idp", "aud": []string{"semproxy", "else"}, "exp": now.Add(time.Minute).Unix(),
			"iat": now.Unix(), "org": map[string]any{"id": "acme"}, "tenant": "globex",
		}
		if change != nil {
			change(c)
		}
		return c
	}
	with := func(name string, value any) map[string]any {
		return claims(func(c map[string]any) {
			if value == nil {
				delete(c, name)
				return
			}
			c[name] = value
		})
	}
	publicPEM := func() []byte {
		der, err := x509.MarshalPKIXPublicKey(us.rsa.Public())
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}()
	good := sign(t, jose.RS256, us.rsa, "r", claims(nil))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"r"}`)) + "." + payload(t, claims(nil)) + "."
	for _, c := range []struct{ name, token, want string }{
		{"RS256", good, "acme by token"},
		{"ES256", sign(t, jose.ES256, us.ec, "e", claims(nil)), "acme by token"},
		{"without a key id", sign(t, jose.ES256, us.ec, "", claims(nil)), "acme by token"},
		{"alg none", none, identity.CodeBadToken},
		{"HMAC over the public key", sign(t, jose.HS256, publicPEM, "r", claims(nil)), identity.CodeBadToken},
		{"another algorithm of the same key", sign(t, jose.PS256, us.rsa, "r", claims(nil)), identity.CodeBadToken},
		{"a key for something else", sign(t, jose.ES256, us.ec, "enc", claims(nil)), identity.CodeBadToken},
		{"another issuer's key", sign(t, jose.RS256, other.rsa, "r", claims(nil)), identity.CodeBadToken},
		{"an unknown key id", sign(t, jose.RS256, us.rsa, "x", claims(nil)), identity.CodeBadToken},
		{"a changed payload", swapPayload(t, good, claims(func(c map[string]any) { c["org"] = map[string]any{"id": "globex"} })), identity.CodeBadToken},
		{"expired", sign(t, jose.RS256, us.rsa, "r", with("exp", now.Add(-time.Minute).Unix())), identity.CodeBadToken},
		{"expired within the leeway", sign(t, jose.RS256, us.rsa, "r", with("exp", now.Add(-time.Second).Unix())), "acme by token"},
		{"no expiry", sign(t, jose.RS256, us.rsa, "r", with("exp", nil)), identity.CodeBadToken},
		{"not yet", sign(t, jose.RS256, us.rsa, "r", with("nbf", now.Add(time.Minute).Unix())), identity.CodeBadToken},
		{"another iss", sign(t, jose.RS256, us.rsa, "r", with("iss", "https://evil")), identity.CodeBadToken},
		{"another aud", sign(t, jose.RS256, us.rsa, "r", with("aud", "else")), identity.CodeBadToken},
		{"no aud", sign(t, jose.RS256, us.rsa, "r", with("aud", nil)), identity.CodeBadToken},
		{"no claim", sign(t, jose.RS256, us.rsa, "r", with("org", nil)), identity.CodeBadToken},
		{"a claim of another kind", sign(t, jose.RS256, us.rsa, "r", with("org", map[string]any{"id": 7})), identity.CodeBadToken},
		{"a tenant that is none", sign(t, jose.RS256, us.rsa, "r", with("org", map[string]any{"id": "a.*.>"})), identity.CodeBadTenant},
		{"an API key still counts", acmeKey, "acme by key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := result(r, request(t, "192.0.2.1:5", "Authorization: Bearer "+c.token)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func payload(t *testing.T, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func swapPayload(t *testing.T, token string, claims map[string]any) string {
	t.Helper()
	var first, last int
	for i, b := range token {
		if b == '.' && first == 0 {
			first = i
		}
		if b == '.' {
			last = i
		}
	}
	return token[:first+1] + payload(t, claims) + token[last:]
}

func TestAKeySetWithSecretsOrNothingIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	for _, text := range []string{`{}`, `[`, `{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}`} {
		writeFile(t, path, text)
		if _, err := identity.OpenKeySet(path, quiet, nil); err == nil {
			t.Errorf("%s: got nil, want an error", text)
		}
	}
}

func TestAKeySetIsFetchedAgainWhenTheIssuerRotates(t *testing.T) {
	first, second := newIssuer(t), newIssuer(t)
	var current atomic.Pointer[string]
	set := first.keySet(t)
	current.Store(&set)
	var fetched atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		if fetched.Load()%3 == 0 {
			http.Error(w, "down", http.StatusInternalServerError) // the last good set stays
			return
		}
		_, _ = w.Write([]byte(*current.Load()))
	}))
	defer server.Close()
	source := identity.NewKeySetURL(server.URL, quiet, 5*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx) }()
	tokens := &identity.Tokens{Source: source, Issuer: "i", Audience: "a", Claim: "t"}
	valid := func(i *issuer) bool {
		token := sign(t, jose.RS256, i.rsa, "r", map[string]any{"iss": "i", "aud": "a", "t": "acme", "exp": time.Now().Add(time.Hour).Unix()})
		tenant, err := tokens.Tenant(token, time.Now())
		return err == nil && tenant == "acme"
	}
	until(t, func() bool { return valid(first) })
	set2 := second.keySet(t)
	current.Store(&set2)
	until(t, func() bool { return valid(second) && !valid(first) })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// until yields until the condition holds.
func until(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come to hold")
		}
	}
}
