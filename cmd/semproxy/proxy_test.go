package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/client"
)

// engineWithAdapter answers chats. Of each it sends a page, as an adapter does, by the parameters that came with it: through the sidecar
// that sc returns, under the request's trace.
func engineWithAdapter(t *testing.T, sc func() *sidecartest.Sidecar) *httptest.Server {
	t.Helper()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			_, _ = io.WriteString(w, "vllm:kv_cache_usage_perc 0.5\n")
			return
		}
		var body struct {
			KV struct {
				Tenant, Object, Traceparent string
				Compress                    bool
			} `json:"kv_transfer_params"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || !body.KV.Compress {
			t.Errorf("got %+v, %v, want parameters that ask to compress", body, err)
		}
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.MapCarrier{"traceparent": body.KV.Traceparent})
		if _, err := sc().Client(t, body.KV.Tenant, client.Options{}).Compress(ctx, sidecartest.Page(t, "kjv")); err != nil {
			t.Errorf("the page: got %v, want cores", err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[],"usage":{"prompt_tokens":900,"completion_tokens":5}}`)
	}))
	t.Cleanup(engine.Close)
	return engine
}

// chatOnce sends a long chat as request r1 and reads the answer to its end.
func chatOnce(t *testing.T, url, key string) (status int, header http.Header) {
	t.Helper()
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("a word ", 600) + `"}]}`
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("X-Request-Id", "r1")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return response.StatusCode, response.Header
}

// The whole of it: a client asks, the proxy decides, the engine's adapter sends a page by the parameters that it was given,
// and all of it is one trace and one record.
func TestAChatWhosePagesAreCompressedIsOneTraceAndOneRecord(t *testing.T) {
	var sc *sidecartest.Sidecar
	engine := engineWithAdapter(t, func() *sidecartest.Sidecar { return sc })
	key := identity.NewKey()
	keys := filepath.Join(t.TempDir(), "keys.yaml")
	entry, err := keyEntry(key, "acme", "test")
	if err == nil {
		err = os.WriteFile(keys, []byte("keys:\n"+entry), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	sc = sidecartest.Start(t, func(c *config.Config) {
		c.Proxy.Listen, c.Proxy.Engine.URL, c.Proxy.Identity.KeysFile = "127.0.0.1:0", engine.URL, keys
	})
	status, header := chatOnce(t, sc.ProxyURL(), key)
	if status != 200 || header.Get("Semproxy-Ratio") == "" || header.Get("Semproxy-Fidelity") == "" {
		t.Errorf("got %d, %v, want what the page became in the headers", status, header)
	}
	explained := getJSON[struct {
		Request recent.Request `json:"request"`
		Summary []string       `json:"summary"`
	}](t, sc.AdminURL()+"/api/v1/requests/r1/explain")
	r := explained.Request
	if len(r.Pages) != 1 || r.Pages[0].Ratio <= 0 || r.Pages[0].Ratio > 0.51 || !r.Pages[0].Measured || r.Pages[0].Device == "" || r.Decision.Profile != "half" {
		t.Errorf("got %+v", explained)
	}
	sum := 0.0
	for _, l := range r.Layers {
		sum += l.Ratio / float64(len(r.Layers))
		if l.Tokens != r.Pages[0].Tokens || !l.Measured || l.AttentionError <= 0 || l.KeySimilarity <= 0.5 || l.KeySimilarity > 1 {
			t.Errorf("layer: got %+v", l)
		}
	}
	if len(r.Layers) != r.Pages[0].Layers || math.Abs(sum-r.Pages[0].Ratio) > 1e-3 {
		t.Errorf("got %d layers with a mean ratio of %v, want the page's %d and %v", len(r.Layers), sum, r.Pages[0].Layers, r.Pages[0].Ratio)
	}
	if got := getJSON[[]sidecar.TenantView](t, sc.AdminURL()+"/api/v1/tenants"); len(got) == 0 {
		t.Error("got no tenants")
	}
	names := map[string]bool{}
	for deadline := time.Now().Add(10 * time.Second); !names[semconv.SpanPage] && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, span := range sc.Spans.Ended() { // the page's ends behind its reply
			if span.SpanContext().TraceID().String() == r.TraceID {
				names[span.Name()] = true
			}
		}
	}
	for _, want := range []string{"chat m", semconv.SpanDecide, semconv.SpanEngine, semconv.SpanPage, semconv.SpanCompress, semconv.SpanStore} {
		if !names[want] {
			t.Errorf("trace %s has no span %s; has %v", r.TraceID, want, names)
		}
	}
}

func getJSON[T any](t *testing.T, url string) T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(sidecartest.Get(t, url)), &out); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return out
}

func TestKeys(t *testing.T) {
	out, err := cli(t, "keys", "new", "--tenant", "acme", "--name", "web")
	if err != nil {
		t.Fatal(err)
	}
	var key string
	for line := range strings.Lines(out) {
		if k, ok := strings.CutPrefix(line, "# sp-"); ok {
			key = "sp-" + strings.TrimSpace(k)
		}
	}
	hash, err := identity.HashKey(key)
	if err != nil || !strings.HasSuffix(out, fmt.Sprintf("  - { name: %q, tenant: acme, sha256: %s }\n", "web", hash)) {
		t.Errorf("got %s, %v, want the entry of the key", out, err)
	}
	root := func(stdin string, args ...string) (string, error) {
		cmd := newKeysCommand()
		var stdout bytes.Buffer
		cmd.SetIn(strings.NewReader(stdin))
		cmd.SetOut(&stdout)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(context.Background())
		return stdout.String(), err
	}
	if out, err := root(key+"\n", "hash", "--tenant", "acme"); err != nil || out != "  - { tenant: acme, sha256: "+hash+" }\n" {
		t.Errorf("hash: got %q, %v", out, err)
	}
	for _, bad := range []struct{ stdin, tenant string }{{"short", "acme"}, {key, "a.b"}, {"", "acme"}} {
		if _, err := root(bad.stdin, "hash", "--tenant", bad.tenant); err == nil || strings.Contains(err.Error(), "short") {
			t.Errorf("%+v: got %v, want an error without the key", bad, err)
		}
	}
}
