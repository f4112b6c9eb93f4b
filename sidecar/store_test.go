package sidecar_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/store/storetest"
	"github.com/semproxy/semproxy/transport/client"
)

// fetch reads a path of the admin port.
func fetch(t *testing.T, s *sidecartest.Sidecar, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(s.AdminURL() + path)
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
	a, b := sidecartest.Start(t, sidecartest.OverRedis(server.Addr, true, keys)), sidecartest.Start(t, sidecartest.OverRedis(server.Addr, true, keys))
	first, err := a.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Header.Get(sidecar.HeaderOutcome); got != "stored" {
		t.Errorf("outcome in the other sidecar: got %q, want stored", got)
	}
	if got, want := second.Header.Get(sidecar.HeaderObject), first.Header.Get(sidecar.HeaderObject); got != want {
		t.Errorf("object: got %s, want %s", got, want)
	}
	_, metrics := fetch(t, b, "/metrics")
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
	s := sidecartest.Start(t, sidecartest.OverRedis(server.Addr, true, ""))
	ready := func(want int) {
		t.Helper()
		var body string
		redistest.Eventually(t, "readiness follows", func() bool {
			var status int
			status, body = fetch(t, s, "/readyz")
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
	_, err := s.Client(t, "acme", client.Options{MaxAttempts: 1}).Compress(context.Background(), sidecartest.Page(t, "kjv"))
	if !errors.As(err, &ce) || ce.Code != "store.unavailable" || !ce.Retryable {
		t.Errorf("a page without Redis: got %v, want store.unavailable, retryable", err)
	}
	if status, body := fetch(t, s, "/api/v1/tenants"); status != http.StatusOK || !strings.Contains(body, `"store":"store.unavailable"`) {
		t.Errorf("/api/v1/tenants without Redis: got %d %s", status, body)
	}
	server.Restart(t)
	ready(http.StatusOK)
	if _, err := s.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv")); err != nil {
		t.Errorf("a page when Redis is back: got %v, want nil", err)
	}
}

// A Redis that is not required costs sharing, not service.
func TestAnOptionalRedisMayBeAway(t *testing.T) {
	server := redistest.Start(t)
	s := sidecartest.Start(t, sidecartest.OverRedis(server.Addr, false, ""))
	server.Kill()
	c := s.Client(t, "acme", client.Options{})
	for _, want := range []string{"compressed", "stored"} {
		got, err := c.Compress(context.Background(), sidecartest.Page(t, "kjv"))
		if err != nil || got.Header.Get(sidecar.HeaderOutcome) != want {
			t.Fatalf("Compress: got %v, want %s", err, want)
		}
	}
	if status, body := fetch(t, s, "/readyz"); status != http.StatusOK {
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
			s, err := sidecar.Start(context.Background(), &cfg, sidecar.Options{LogOutput: io.Discard})
			if err == nil {
				s.Close()
				t.Fatal("startService: got nil, want an error")
			}
			if !strings.Contains(err.Error(), "open store") || !strings.Contains(err.Error(), "nowhere") {
				t.Errorf("error: got %v, want the file", err)
			}
		})
	}
}
