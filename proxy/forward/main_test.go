package forward_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/proxy/recent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	acmeKey = "sp-acme-0123456789abcdef0123"
	slowKey = "sp-slow-0123456789abcdef0123"
	poorKey = "sp-poor-0123456789abcdef0123"
	freeKey = "sp-free-0123456789abcdef0123"
	evilKey = "sp-evil-0123456789abcdef0123" // of a tenant that the policy does not name
)

const rules = `
apiVersion: semproxy.io/v1
profiles:
  half: { method: semantic, ratio: 0.5 }
tenants:
  acme: { routes: [ /v1/audio/transcriptions, /v1/empty404, /v1/trailers ], rules: [ { name: long, match: { model: "llama*", minTokens: 100 }, profile: half }, { profile: exact } ] }
  slow: { limits: { concurrentRequests: 1, queuedRequests: 1 } }
  free: { limits: { concurrentRequests: 100 } }
  poor: { limits: { tokensPerMinute: 60 } }
`

// proxied is a proxy on a port of its own in front of an engine.
type proxied struct {
	*forward.Server
	ring *recent.Ring
	gate *gate.Gate
	log  *buffer
}

// startProxy stands in front of target until the test ends; change may be nil.
func startProxy(t *testing.T, target string, change func(*forward.Config, *forward.ServerConfig)) *proxied {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(rules)})
	if err != nil {
		t.Fatal(err)
	}
	s := &proxied{ring: recent.New(100), gate: gate.New(gate.Options{MinTokens: 50}), log: &buffer{}}
	cfg := forward.Config{
		Engine: u, Identity: resolver(t), Policy: func() *policy.Set { return set }, Recent: s.ring, Gate: s.gate,
		Admission: limit.New(limit.Options{}), Logger: slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	listen := forward.ServerConfig{Logger: cfg.Logger}
	if change != nil {
		change(&cfg, &listen)
	}
	p, err := forward.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s.Server, err = forward.Listen("127.0.0.1:0", p, listen); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			t.Errorf("Drain: got %v, want nil", err)
		}
		p.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	return s
}

func resolver(t *testing.T) *identity.Resolver {
	t.Helper()
	text := "keys:\n"
	for tenant, key := range map[string]string{"acme": acmeKey, "slow": slowKey, "poor": poorKey, "free": freeKey, "evil": evilKey} {
		hash, err := identity.HashKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text += "  - { tenant: " + tenant + ", sha256: " + hash + " }\n"
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := identity.OpenKeys(path, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.New(identity.Config{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// done is the record of the newest request, once it is complete: the client may have its answer a little earlier.
func (s *proxied) done(t *testing.T) recent.Request {
	t.Helper()
	until(t, func() bool { return len(s.ring.List()) > 0 && s.ring.List()[0].Done })
	return s.ring.List()[0]
}

type answer struct {
	status  int
	header  http.Header
	trailer http.Header
	body    string
	err     error // of reading the body
}

// call sends a request with the key and headers "Name: value".
func (s *proxied) call(t *testing.T, method, path, key, body string, headers ...string) answer {
	t.Helper()
	return callWith(t, http.DefaultClient, method, s.URL()+path, key, body, headers...)
}

func callWith(t *testing.T, client *http.Client, method, target, key, body string, headers ...string) answer {
	t.Helper()
	r := newRequest(t, method, target, key, body, headers...)
	response, err := client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, response.Trailer, string(text), err}
}

func newRequest(t *testing.T, method, target, key, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return r
}

// chat is a request's body with a prompt of about so many tokens as the engine counts them.
func chat(text string, tokens int, rest string) string {
	return `{"model":"llama-3","messages":[{"role":"user","content":"` + text + strings.Repeat(" word", tokens) + `"}]` + rest + `}`
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

// buffer is a bytes.Buffer that several goroutines may write to.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newTarget is an engine of one handler.
func newTarget(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}
