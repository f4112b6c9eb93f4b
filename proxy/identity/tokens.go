package identity

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// algorithms are those that a token may be signed with: public keys only. A token that says none, or HMAC over a public
// key, is refused before any key is looked at.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// maxToken bounds a token's length.
const maxToken = 16 << 10

// leeway is how much the clocks may differ.
const leeway = 30 * time.Second

// KeySource gives the keys that sign tokens.
type KeySource interface {
	// Keys are those of a key id; all of them for an empty id. Nothing is fetched while the caller waits.
	Keys(id string) []jose.JSONWebKey
}

// Tokens are JSON Web Tokens of one issuer.
type Tokens struct {
	Source   KeySource
	Issuer   string // must be the token's iss
	Audience string // must be one of the token's aud
	Claim    string // names the tenant; a path with dots, such as org.id
}

// Tenant is the tenant of a token that is signed by a known key, meant for us, and in force. The error says why it is
// not, without the token; it is for the log.
func (t *Tokens) Tenant(token string, now time.Time) (string, error) {
	if len(token) > maxToken {
		return "", errors.New("the token is too long")
	}
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return "", errors.New("the token cannot be read or has an algorithm that is not allowed")
	}
	if len(parsed.Headers) != 1 {
		return "", errors.New("the token has not one signature")
	}
	header := parsed.Headers[0]
	var registered jwt.Claims
	var all map[string]any
	verified := false
	for _, key := range t.Source.Keys(header.KeyID) {
		// The key says which algorithm it is for; where it does not, go-jose refuses an algorithm of another kind of key.
		if key.Use != "" && key.Use != "sig" || key.Algorithm != "" && key.Algorithm != header.Algorithm || !key.IsPublic() {
			continue
		}
		if verified = parsed.Claims(key.Key, &registered, &all) == nil; verified {
			break
		}
	}
	if !verified {
		return "", errors.New("no key of the issuer made the signature")
	}
	if registered.Expiry == nil {
		return "", errors.New("the token does not expire")
	}
	expected := jwt.Expected{Issuer: t.Issuer, AnyAudience: jwt.Audience{t.Audience}, Time: now}
	if err := registered.ValidateWithLeeway(expected, leeway); err != nil {
		return "", fmt.Errorf("a claim does not hold: %w", err)
	}
	return claim(all, t.Claim)
}

// claim follows a path of dots.
func claim(all map[string]any, path string) (string, error) {
	var at any = all
	for name := range strings.SplitSeq(path, ".") {
		object, ok := at.(map[string]any)
		if !ok {
			return "", errors.New("the claim that names the tenant is not there")
		}
		at = object[name]
	}
	text, ok := at.(string)
	if !ok || text == "" {
		return "", errors.New("the claim that names the tenant is not there or not a text")
	}
	return text, nil
}
