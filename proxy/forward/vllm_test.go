package forward_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// realVLLM starts the server of vLLM, with the Python of SEMPROXY_TEST_VLLM and the model of SEMPROXY_TEST_MODEL, on a CPU.
func realVLLM(t *testing.T) *url.URL {
	t.Helper()
	program, model := os.Getenv("SEMPROXY_TEST_VLLM"), os.Getenv("SEMPROXY_TEST_MODEL")
	if program == "" || model == "" {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "vllmcpu") {
			t.Fatal("SEMPROXY_TEST_REQUIRE names vllmcpu, but SEMPROXY_TEST_VLLM and SEMPROXY_TEST_MODEL are not set")
		}
		t.Skip("needs vLLM for CPUs: SEMPROXY_TEST_VLLM is the Python of its environment, SEMPROXY_TEST_MODEL a model's folder")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, port, _ := net.SplitHostPort(address)
	log, err := os.Create(filepath.Join(t.TempDir(), "vllm.log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := exec.CommandContext(ctx, program, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--enforce-eager", "--block-size", "32", "--host", "127.0.0.1", "--port", port, "--served-model-name", "m", "--max-model-len", "512", "--max-num-seqs", "4", "--enable-prompt-tokens-details") //nolint:gosec // the tester's own
	c.Env = append(os.Environ(), "VLLM_CPU_KVCACHE_SPACE=1", "OMP_NUM_THREADS=1", "VLLM_CPU_OMP_THREADS_BIND=nobind", "HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1")
	c.Stdout, c.Stderr = log, log
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 30 * time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = c.Wait(); close(done) }()
	t.Cleanup(func() { cancel(); <-done; _ = log.Close() })
	u := &url.URL{Scheme: "http", Host: address}
	for deadline := time.Now().Add(15 * time.Minute); ; {
		response, err := http.Get(u.String() + "/health") //nolint:noctx // of a test
		if err == nil {
			if _ = response.Body.Close(); response.StatusCode == http.StatusOK {
				return u
			}
		}
		select {
		case <-done:
		case <-time.After(time.Second):
			if time.Now().Before(deadline) {
				continue
			}
		}
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("vLLM did not come up:\n%s", text[max(0, len(text)-4000):])
	}
}

// tap stands between the proxy and an engine and remembers what passes.
type tap struct {
	mu   sync.Mutex
	seen map[string]string // path -> the last body
}

func (p *tap) take(path string) (body string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	body, ok = p.seen[path]
	delete(p.seen, path)
	return body, ok
}

func startTap(t *testing.T, engine *url.URL) (*tap, string) {
	t.Helper()
	p := &tap{seen: map[string]string{}}
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(engine) }}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.mu.Lock()
		p.seen[r.URL.Path] = string(body)
		p.mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return p, s.URL
}

// No route that a real vLLM says to have computes a prompt with a salt that is not the tenant's, or without its policy; and tenants do not
// share its prefix cache.
func TestTenantsBeforeARealVLLM(t *testing.T) {
	engine := realVLLM(t)
	seen, target := startTap(t, engine)
	s := startProxy(t, target, nil)
	var described struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	response, err := http.Get(engine.String() + "/openapi.json") //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(response.Body).Decode(&described); err != nil || len(described.Paths) < 10 {
		t.Fatalf("got %d paths, %v, want vLLM's own list", len(described.Paths), err)
	}
	_ = response.Body.Close()
	salt := func(key, own string) string {
		s.call(t, "POST", "/v1/completions", key, `{"model":"m","prompt":"hello","max_tokens":1`+own+`}`)
		body, _ := seen.take("/v1/completions")
		var sent struct {
			Salt string `json:"cache_salt"`
		}
		if json.Unmarshal([]byte(body), &sent) != nil || sent.Salt == "" {
			t.Fatalf("got %s, want a salt", body)
		}
		return sent.Salt
	}
	acme, free := salt(acmeKey, ""), salt(freeKey, "")
	own := `,"cache_salt":"` + free + `"` // a client's own salt goes into its tenant's, and is nobody's
	mixed := salt(acmeKey, own)
	if acme == free || mixed == free || mixed == acme || mixed == salt(freeKey, own) {
		t.Error("two tenants have one salt, or a client chose one")
	}
	computesNothing := []string{"/tokenize", "/detokenize", "/v1/messages/count_tokens", "/v1/responses/{response_id}/cancel"}
	reached := 0
	for path, methods := range described.Paths {
		if methods["post"] == nil {
			continue
		}
		got := s.call(t, "POST", strings.ReplaceAll(path, "{response_id}", "r1"), acmeKey, `{"model":"m","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","max_tokens":2`+own+`,"kv_transfer_params":{"tenant":"free"},"ec_transfer_params":{"peer_host":"evil"},"vllm_xargs":{"kv_transfer_params":"evil"}}`)
		body, passed := seen.take(strings.ReplaceAll(path, "{response_id}", "r1"))
		switch {
		case !passed && got.status != 404:
			t.Errorf("%s: got %d without a question to the engine, want 404", path, got.status)
		case !passed:
		case strings.Contains(body, free) || strings.Contains(body, "evil") || strings.Contains(body, `"tenant":"free"`):
			t.Errorf("%s: got %s at the engine, want nothing of the client's own", path, body)
		case slices.Contains(computesNothing, path):
		default:
			if reached++; !strings.Contains(body, `"cache_salt":"`+mixed) {
				t.Errorf("%s: got %d, %s at the engine, want the tenant's salt", path, got.status, body)
			}
		}
	}
	if reached < 4 {
		t.Errorf("only %d routes reached the engine", reached)
	}
	prompt := strings.Repeat("The harbour's register names each box and its owner. ", 25)
	cached := func(key string) int {
		got := s.call(t, "POST", "/v1/completions", key, fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":1}`, prompt))
		var a struct {
			Usage struct {
				Details *struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			}
		}
		if err := json.Unmarshal([]byte(got.body), &a); err != nil || got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		if a.Usage.Details == nil {
			return 0
		}
		return a.Usage.Details.Cached
	}
	first, again, other := cached(acmeKey), cached(acmeKey), cached(freeKey)
	if first != 0 || again == 0 || other != 0 {
		t.Errorf("cached tokens: got %d, then %d for the same tenant and %d for another, want 0, some, 0", first, again, other)
	}
}
