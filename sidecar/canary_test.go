package sidecar_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// An engine whose answers change with compressed KV is left alone; when it has started anew and they do not, prompts are
// compressed. The engine's adapter sends real pages.
func TestTheCanaryHoldsBackAnEngineThatAnswersOtherwise(t *testing.T) {
	var sc atomic.Pointer[sidecartest.Sidecar]
	var build atomic.Int64 // of the engine: the first is broken
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metrics":
			fmt.Fprintf(w, "process_start_time_seconds %d\n", 100+build.Load())
			return
		case "/v1/models":
			_, _ = io.WriteString(w, `{"data":[{"id":"m"}]}`)
			return
		}
		var body struct {
			KV struct {
				Tenant, Object string
				Compress       bool
			} `json:"kv_transfer_params"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("got %v", err)
		}
		text := "the same words"
		if s := sc.Load(); body.KV.Compress && s != nil {
			blob := sidecartest.Edited(t, func(p *page.Page) { p.Sequence = body.KV.Object })
			if _, err := s.Client(t, body.KV.Tenant, client.Options{}).Compress(r.Context(), blob); err != nil {
				t.Errorf("the page: got %v", err)
			}
			if build.Load() == 0 {
				text = "something else"
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"choices":[{"text":%q}],"usage":{"prompt_tokens":900,"completion_tokens":3}}`, text)
	}))
	defer engine.Close()
	sc.Store(sidecartest.Start(t, func(c *config.Config) {
		c.Proxy.Listen, c.Proxy.Engine.URL, c.Proxy.Identity.AnonymousTenant = "127.0.0.1:0", engine.URL, "acme"
		c.Proxy.Canary.Tenant, c.Proxy.Canary.Interval = "acme", policy.Duration(10*time.Millisecond)
	}))
	defer http.DefaultClient.CloseIdleConnections()
	s := sc.Load()
	ask := func() recent.Request {
		body := `{"model":"m","prompt":"` + strings.Repeat("a word ", 600) + `"}`
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.ProxyURL()+"/v1/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		id := response.Header.Get("X-Request-Id")
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if r, ok := s.Request(id); ok && r.Done {
				return r
			}
		}
		t.Fatal("the request was not remembered")
		return recent.Request{}
	}
	until := func(holds func(r recent.Request) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			r := ask()
			if holds(r) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %+v", r.Gate)
			}
		}
	}
	until(func(r recent.Request) bool {
		return r.Gate.Reason == "canary" && !r.Gate.Compress && strings.Contains(r.Gate.Why, "differs with compressed KV") && r.Status == 200
	})
	build.Add(1)
	until(func(r recent.Request) bool { return r.Gate.Compress })
}
