package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy/config"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
	"github.com/semproxy/semproxy/transport/client"
)

func overRedis(addr string, required bool, keys string) func(*config.Config) {
	return func(c *config.Config) {
		c.Store.Dir, c.Store.Redis.Addrs, c.Store.Redis.Required = "", addr, required
		c.Store.Redis.Timeout = policy.Duration(300e6)
		c.Store.Encryption.KeysDir = keys
	}
}

// fetch reads a path of the admin port.
func (s *sidecar) fetch(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(s.admin.URL() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close(); http.DefaultClient.CloseIdleConnections() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// What one sidecar has stored, another one answers with, encrypted or not.
func TestSidecarsShareOneRedis(t *testing.T) {
	server := redistest.Start(t)
	keys := storetest.Keys(t, map[string]string{"k1": strings.Repeat("k", 32)}, "acme k1\n")
	a, b := startSidecar(t, overRedis(server.Addr, true, keys)), startSidecar(t, overRedis(server.Addr, true, keys))
	first, err := a.client(t, "acme", client.Options{}).Compress(context.Background(), demoBlob(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.client(t, "acme", client.Options{}).Compress(context.Background(), demoBlob(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Header.Get(headerOutcome); got != "stored" {
		t.Errorf("outcome in the other sidecar: got %q, want stored", got)
	}
	if got, want := second.Header.Get(headerObject), first.Header.Get(headerObject); got != want {
		t.Errorf("object: got %s, want %s", got, want)
	}
	_, metrics := b.fetch(t, "/metrics")
	for _, want := range []string{`semproxy_store_events_total{`, `semproxy_store_event="hit"`, `semproxy_store_breakers_open`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics does not show %s", want)
		}
	}
	raw := server.Client(t)
	if all := raw.Keys(t.Context(), "{acme:*}:m").Val(); len(all) != 1 {
		t.Errorf("manifests: got %v, want one", all)
	}
	for _, key := range raw.Keys(t.Context(), "{acme:*}:*:0").Val() {
		if tile := raw.Get(t.Context(), key).Val(); !strings.HasPrefix(tile, "SEMSEAL1") || strings.Contains(tile, "semproxy.cores") {
			t.Errorf("%s is not encrypted", key)
		}
	}
}

// Without the Redis that it requires, a sidecar is not ready and answers pages with a retryable code; when Redis is back
// it is ready again, by itself.
func TestReadinessFollowsRedis(t *testing.T) {
	server := redistest.Start(t)
	s := startSidecar(t, overRedis(server.Addr, true, ""))
	ready := func(want int) {
		t.Helper()
		var body string
		redistest.Eventually(t, "readiness follows", func() bool {
			var status int
			status, body = s.fetch(t, "/readyz")
			return status == want
		})
		var answer struct {
			Checks []struct {
				Name   string
				OK     bool
				Detail struct{ Kind string }
			}
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		for _, c := range answer.Checks {
			if c.Name == "store" && (c.OK != (want == http.StatusOK) || c.Detail.Kind != "redis") {
				t.Errorf("check of the store: got %+v", c)
			}
		}
	}
	ready(http.StatusOK)
	server.Kill()
	ready(http.StatusServiceUnavailable)
	var ce *client.Error
	_, err := s.client(t, "acme", client.Options{MaxAttempts: 1}).Compress(context.Background(), demoBlob(t, "kjv"))
	if !errors.As(err, &ce) || ce.Code != "store.unavailable" || !ce.Retryable {
		t.Errorf("a page without Redis: got %v, want store.unavailable, retryable", err)
	}
	if status, body := s.fetch(t, "/api/v1/tenants"); status != http.StatusOK || !strings.Contains(body, `"store":"store.unavailable"`) {
		t.Errorf("/api/v1/tenants without Redis: got %d %s", status, body)
	}
	server.Restart(t)
	ready(http.StatusOK)
	if _, err := s.client(t, "acme", client.Options{}).Compress(context.Background(), demoBlob(t, "kjv")); err != nil {
		t.Errorf("a page when Redis is back: got %v, want nil", err)
	}
}

// A Redis that is not required costs sharing, not service.
func TestAnOptionalRedisMayBeAway(t *testing.T) {
	server := redistest.Start(t)
	s := startSidecar(t, overRedis(server.Addr, false, ""))
	server.Kill()
	c := s.client(t, "acme", client.Options{})
	for _, want := range []string{"compressed", "stored"} {
		got, err := c.Compress(context.Background(), demoBlob(t, "kjv"))
		if err != nil || got.Header.Get(headerOutcome) != want {
			t.Fatalf("Compress: got %v, want %s", err, want)
		}
	}
	if status, body := s.fetch(t, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: got %d %s, want 200", status, body)
	}
}

func TestAStoreWithAMistakeStopsTheStart(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"no keys":     func(c *config.Config) { c.Store.Encryption.KeysDir = filepath.Join(t.TempDir(), "nowhere") },
		"no password": func(c *config.Config) { c.Store.Redis.Addrs, c.Store.Redis.PasswordFile = "127.0.0.1:1", "nowhere" },
		"no certificate": func(c *config.Config) {
			c.Store.Redis.Addrs = "127.0.0.1:1"
			c.Store.Redis.TLS = config.RedisTLS{Enabled: true, CAFile: "nowhere"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config.Default()
			cfg.NATS.Embedded.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0"
			change(&cfg)
			s, err := startService(context.Background(), &cfg, serviceOptions{LogOutput: io.Discard})
			if err == nil {
				s.release()
				t.Fatal("startService: got nil, want an error")
			}
			if !strings.Contains(err.Error(), "open store") || !strings.Contains(err.Error(), "nowhere") {
				t.Errorf("error: got %v, want the file", err)
			}
		})
	}
}
