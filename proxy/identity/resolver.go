package identity

import (
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
)

// Config says which credentials count. At least one must.
type Config struct {
	Keys      *Keys   // API keys; nil: none
	Tokens    *Tokens // JSON Web Tokens; nil: none
	Header    *Header // trusted header; nil: none
	Anonymous string  // tenant of a request that brings no credential; empty: it is refused
	Logger    *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Resolver resolves tenants. It is safe for concurrent use.
type Resolver struct{ cfg Config }

// New makes a resolver.
func New(cfg Config) (*Resolver, error) {
	if cfg.Keys == nil && cfg.Tokens == nil && cfg.Header == nil && cfg.Anonymous == "" {
		return nil, errors.New("identity: there is no way to tell tenants apart: configure keys, tokens, a trusted header or an anonymous tenant")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{cfg: cfg}, nil
}

// Who is the answer.
type Who struct {
	Tenant string
	By     string // key, token, header, anonymous
}

// tenantName is what the policy accepts as the name of a tenant; it also goes into subjects of NATS.
var tenantName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ValidTenant says whether a tenant may have the name.
func ValidTenant(name string) bool { return tenantName.MatchString(name) }

// Codes of refusals; each has status 401.
const (
	CodeMissing    = codes.IdentityMissing
	CodeUnknownKey = codes.IdentityUnknownKey
	CodeBadToken   = codes.IdentityBadToken
	CodeBadTenant  = codes.IdentityBadTenant
	CodeAmbiguous  = codes.IdentityAmbiguous
)

func refuse(code, message string) error {
	return &dialect.Error{Status: http.StatusUnauthorized, Code: code, Message: message}
}

// Resolve finds the tenant. The error is a *dialect.Error.
func (r *Resolver) Resolve(req *http.Request) (Who, error) {
	who, err := r.resolve(req)
	if err == nil && !tenantName.MatchString(who.Tenant) {
		return Who{}, refuse(CodeBadTenant, "the credential names no valid tenant")
	}
	return who, err
}

func (r *Resolver) resolve(req *http.Request) (Who, error) {
	if h := r.cfg.Header; h != nil && h.Trusts(req) {
		if values := req.Header.Values(h.name); len(values) > 0 {
			if len(values) > 1 {
				return Who{}, refuse(CodeAmbiguous, "the header that names the tenant is there more than once")
			}
			return Who{values[0], "header"}, nil
		}
	}
	credential, err := credentialOf(req.Header)
	if err != nil {
		return Who{}, err
	}
	switch {
	case credential == "" && r.cfg.Anonymous != "":
		return Who{r.cfg.Anonymous, "anonymous"}, nil
	case credential == "":
		return Who{}, refuse(CodeMissing, "a credential is required: Authorization: Bearer <key or token>")
	case r.cfg.Tokens != nil && strings.Count(credential, ".") == 2:
		tenant, err := r.cfg.Tokens.Tenant(credential, r.cfg.Now())
		if err != nil {
			r.cfg.Logger.InfoContext(req.Context(), "token_refused", "reason", err.Error())
			return Who{}, refuse(CodeBadToken, "the token is not valid here")
		}
		return Who{tenant, "token"}, nil
	case r.cfg.Keys != nil:
		if tenant, ok := r.cfg.Keys.Tenant(credential); ok {
			return Who{tenant, "key"}, nil
		}
	}
	return Who{}, refuse(CodeUnknownKey, "the credential is not known")
}

// credentialOf is the one credential of a request: of Authorization or of X-Api-Key. Two that differ are refused, since
// another reader of the request could take the other one.
func credentialOf(h http.Header) (string, error) {
	found := ""
	for _, name := range []string{"Authorization", "X-Api-Key"} {
		for _, value := range h.Values(name) {
			if name == "Authorization" {
				scheme, rest, ok := strings.Cut(value, " ")
				if !ok || !strings.EqualFold(scheme, "Bearer") {
					return "", refuse(CodeMissing, "the Authorization header must be: Bearer <key or token>")
				}
				value = strings.TrimSpace(rest)
			}
			if found != "" && value != found {
				return "", refuse(CodeAmbiguous, "there is more than one credential")
			}
			found = value
		}
	}
	return found, nil
}

// Strip removes every credential from the headers, so that the engine sees none.
func (r *Resolver) Strip(h http.Header) {
	h.Del("Authorization")
	h.Del("X-Api-Key")
	if r.cfg.Header != nil {
		h.Del(r.cfg.Header.name)
	}
}
