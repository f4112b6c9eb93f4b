// Package sidecartest runs sidecars inside tests, and makes pages for them.
package sidecartest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

const testPolicy = `
apiVersion: semproxy.io/v1
profiles:
  half: { method: semantic, ratio: 0.5, guard: { maxAttentionError: 0.9 } }
tenants:
  acme: { rules: [ { profile: half } ] }
  globex: { rules: [ { profile: half } ] }
  slow: { limits: { pagesPerSecond: 1 }, rules: [ { profile: half } ] }
  small: { limits: { inFlightBytes: 1KiB }, rules: [ { profile: half } ] }
  full: { limits: { storedBytes: 1KiB }, rules: [ { profile: half } ] }
`

// Sidecar is one in this process with an embedded NATS server on a port of its own.
type Sidecar struct {
	*sidecar.Sidecar
	Spans *tracetest.SpanRecorder
}

// Start runs a sidecar until the test ends; change may edit its configuration.
func Start(t *testing.T, change func(*config.Config)) *Sidecar {
	t.Helper()
	set, err := policy.Compile(policy.Source{Name: "test.yaml", Data: []byte(testPolicy)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.NATS.Embedded.Listen, cfg.Admin.Listen, cfg.Store.Dir = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	if change != nil {
		change(&cfg)
	}
	sc := &Sidecar{Spans: tracetest.NewSpanRecorder()}
	sc.Sidecar, err = sidecar.Start(context.Background(), &cfg, sidecar.Options{Policy: set, LogOutput: io.Discard, Spans: []sdktrace.SpanProcessor{sc.Spans}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sc.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the sidecar stopped with %v", err)
		}
	})
	return sc
}

// Client speaks as a tenant; opt may be zero.
func (s *Sidecar) Client(t *testing.T, tenant string, opt client.Options) *client.Client {
	t.Helper()
	conn, err := nats.Connect(s.NATSURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	opt.Tenant, opt.TracerProvider = tenant, s.TracerProvider()
	c, err := client.New(conn, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Page is one of the demo's pages.
func Page(t *testing.T, name string) []byte {
	t.Helper()
	b, err := fs.ReadFile(configs.Demo(), name+".page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Edited is a page of the demo with a change.
func Edited(t *testing.T, f func(*page.Page)) []byte {
	t.Helper()
	p, err := page.Decode(Page(t, "kjv"), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	f(p)
	b, err := p.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Distinct are n pages that differ, so that none is answered from the store.
func Distinct(t *testing.T, n int) [][]byte {
	t.Helper()
	out := make([][]byte, n)
	for i := range out {
		out[i] = Edited(t, func(p *page.Page) {
			ids := make([]int32, p.Tokens)
			for k := range ids {
				ids[k] = int32(p.TokenIDs.At(k))
			}
			ids[0] = int32(i)
			p.TokenIDs, p.Sequence = page.IntsOf(ids), fmt.Sprint("page-", i)
		})
	}
	return out
}

// About holds that a reply decodes and is about the page that was sent.
func About(body []byte, sequence string) error {
	cores, err := page.DecodeCores(body, page.DefaultLimits())
	if err != nil {
		return err
	}
	if cores.Sequence != sequence {
		return fmt.Errorf("the reply is about %s, want %s", cores.Sequence, sequence)
	}
	return nil
}

// Until waits for a condition, 20 seconds at most.
func Until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("20 s passed before %s", what)
		}
	}
}

// OverRedis puts the store into a Redis; keys is the folder of the keys that encrypt it, or empty.
func OverRedis(addr string, required bool, keys string) func(*config.Config) {
	return func(c *config.Config) {
		c.Store.Dir, c.Store.Redis.Addrs, c.Store.Redis.Required = "", addr, required
		c.Store.Redis.Timeout = policy.Duration(300e6)
		c.Store.Encryption.KeysDir = keys
	}
}

// Get is the body of an answer, whatever its status.
func Get(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
