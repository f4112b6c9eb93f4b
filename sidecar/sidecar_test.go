package sidecar_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// raw edits the encoded page, for what the encoder refuses to write.
func raw(t *testing.T, f func([]byte) []byte) []byte {
	return f(slices.Clone(sidecartest.Page(t, "kjv")))
}

func replace(old, by string) func([]byte) []byte {
	return func(b []byte) []byte {
		if len(old) != len(by) || !strings.Contains(string(b[:2000]), old) {
			panic("the header has no " + old + " of that length")
		}
		return []byte(strings.Replace(string(b[:2000]), old, by, 1) + string(b[2000:]))
	}
}

func TestBadInputOverNATSIsRefusedWithItsCodeAndTheServerGoesOn(t *testing.T) {
	s := sidecartest.Start(t, func(c *config.Config) { c.Compress.MaxPageBytes = 2 << 20 })
	cut := func(p *page.Page, n int) {
		// The first n tokens of every head.
		rows := func(b []byte) (out []byte) {
			for h := range p.Layers * p.KVHeads {
				start := h * p.Tokens * p.HeadDim * 2
				out = append(out, b[start:start+n*p.HeadDim*2]...)
			}
			return out
		}
		k, v := rows(p.K), rows(p.V)
		ids, positions := make([]int32, n), make([]int32, n)
		for i := range n {
			ids[i], positions[i] = int32(p.TokenIDs.At(i)), int32(p.Positions.At(i))
		}
		p.K, p.V, p.TokenIDs, p.Positions, p.Boundary = k, v, page.IntsOf(ids), page.IntsOf(positions), p.Boundary[:n]
		p.Tokens, p.TokensTotal = n, n
	}
	good := sidecartest.Page(t, "kjv")
	for _, c := range []struct {
		name, tenant, code string // an empty code: it is served
		blob               []byte
	}{
		{"truncated", "acme", "page.truncated", good[:100000]},
		{"header length beyond the blob", "acme", "page.truncated", raw(t, func(b []byte) []byte { b[6] = 0xff; return b })},
		{"header length in the middle", "acme", "page.bad_header", raw(t, func(b []byte) []byte { b[0]--; return b })},
		{"overlapping tensors", "acme", "page.overlap", raw(t, replace(`[819200, 1638400]`, `[0,       819200]`))},
		{"wrong shape", "acme", "page.bad_shape", raw(t, replace(`[5, 2, 640, 64]`, `[5, 2, 641, 64]`))},
		{"unknown dtype", "acme", "page.bad_dtype", raw(t, replace(`"F16"`, `"Q16"`))},
		{"NaN in K", "acme", "page.not_finite", raw(t, func(b []byte) []byte { n := 8 + int(b[0]) + int(b[1])<<8; b[n+1000], b[n+1001] = 0xff, 0x7f; return b })},
		{"page over the limit", "acme", "page.too_large", sidecartest.Page(t, "kjv_long")},
		{"unknown tenant", "nobody", "policy.denied", good},
		{"a tenant over its stored bytes", "full", "store.too_large", good},
		{"a tenant over its bytes in flight", "small", "", nil}, // below: retryable
		{"one token", "acme", "", sidecartest.Edited(t, func(p *page.Page) { cut(p, 1) })},
		{"as many tokens as are protected", "acme", "", sidecartest.Edited(t, func(p *page.Page) { cut(p, 36) })},
		{"one token more", "acme", "", sidecartest.Edited(t, func(p *page.Page) { cut(p, 37) })},
		{"all delimiters", "acme", "", sidecartest.Edited(t, func(p *page.Page) {
			p.Boundary = slices.Repeat([]byte{1}, p.Tokens)
		})},
		{"no delimiters", "acme", "", sidecartest.Edited(t, func(p *page.Page) { p.Boundary = make([]byte, p.Tokens) })},
		{"everything protected", "acme", "", sidecartest.Edited(t, func(p *page.Page) { p.Protect = slices.Repeat([]byte{1}, p.Tokens) })},
		{"positions that go back", "acme", "page.bad_positions", positions(t, func(i int) int32 { return int32(1000 - i) })},
		{"positions that repeat", "acme", "page.bad_positions", positions(t, func(i int) int32 { return int32(i / 2) })},
	} {
		if c.blob == nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			reply, err := s.Client(t, c.tenant, client.Options{}).Compress(context.Background(), c.blob)
			var ce *client.Error
			switch {
			case c.code == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.code == "":
				if _, err := page.DecodeCores(reply.Body, page.DefaultLimits()); err != nil {
					t.Errorf("the cores do not decode: %v", err)
				}
			case !errors.As(err, &ce) || ce.Code != c.code || ce.Message == "" || ce.Retryable:
				t.Errorf("got %v, want the final code %s", err, c.code)
			}
			if _, err := s.Client(t, "acme", client.Options{}).Compress(context.Background(), good); err != nil {
				t.Errorf("the next page was not served: %v", err)
			}
		})
	}
}

// positions are written into the encoded page, since the encoder refuses bad ones.
func positions(t *testing.T, at func(i int) int32) []byte {
	t.Helper()
	return raw(t, func(b []byte) []byte {
		start := 8 + int(b[0]) + int(b[1])<<8 + 1681920 // of the tensor in kjv's body
		for i := range 640 {
			v := uint32(at(i))
			copy(b[start+4*i:], []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
		}
		return b
	})
}

func TestATenantOverItsLimitsGetsARetryableCode(t *testing.T) {
	s := sidecartest.Start(t, nil)
	var ce *client.Error
	one := client.Options{MaxAttempts: 1}
	_, err := s.Client(t, "small", one).Compress(context.Background(), sidecartest.Page(t, "kjv"))
	if !errors.As(err, &ce) || (ce.Code != "limit.bytes" && ce.Code != "page.too_large") {
		t.Errorf("over the bytes in flight: %v", err)
	}
	c := s.Client(t, "slow", one)
	codes := map[string]int{}
	for range 5 {
		_, err := c.Compress(context.Background(), sidecartest.Page(t, "kjv"))
		switch {
		case err == nil:
			codes["ok"]++
		case errors.As(err, &ce):
			codes[ce.Code]++
			if !ce.Retryable {
				t.Errorf("%v is not retryable", ce)
			}
		default:
			t.Fatal(err)
		}
	}
	if codes["ok"] < 1 || codes["limit.rate"] < 1 {
		t.Errorf("five pages at once with one per second allowed: %v", codes)
	}
	// A client that retries gets its page through.
	if _, err := s.Client(t, "slow", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv_facts")); err != nil {
		t.Errorf("with retries: %v", err)
	}
}

func TestOneTracePerPageFromSenderToStore(t *testing.T) {
	s := sidecartest.Start(t, nil)
	if _, err := s.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv")); err != nil {
		t.Fatal(err)
	}
	want := []string{semconv.SpanSend, semconv.SpanPage, semconv.SpanReceive, semconv.SpanDecide, semconv.SpanCompress, semconv.SpanStore, semconv.SpanReply}
	deadline := time.After(5 * time.Second)
	for {
		byName := map[string]sdktrace.ReadOnlySpan{}
		for _, sp := range s.Spans.Ended() {
			byName[sp.Name()] = sp
		}
		if len(byName) >= len(want) {
			id := byName[semconv.SpanSend].SpanContext().TraceID()
			for _, name := range want {
				sp := byName[name]
				if sp == nil {
					t.Fatalf("no span %s among %v", name, byName)
				}
				if sp.SpanContext().TraceID() != id {
					t.Errorf("span %s is of trace %s, want %s", name, sp.SpanContext().TraceID(), id)
				}
			}
			attrs := map[string]string{}
			for _, a := range byName[semconv.SpanPage].Attributes() {
				attrs[string(a.Key)] = a.Value.String()
			}
			for key, value := range map[string]string{"semproxy.tenant": "acme", "semproxy.rule": "tenants.acme.rules[0]", "semproxy.guard": "held"} {
				if attrs[key] != value {
					t.Errorf("%s = %q on %s, want %q", key, attrs[key], semconv.SpanPage, value)
				}
			}
			for _, key := range []string{"semproxy.ratio", "semproxy.fidelity.attention_error", "semproxy.fidelity.key_similarity"} {
				if attrs[key] == "" {
					t.Errorf("%s lacks %s", semconv.SpanPage, key)
				}
			}
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d kinds of span after 5 s", len(byName))
		case <-time.After(5 * time.Millisecond): // the reply reaches the sender before the spans have ended
		}
	}
}

func TestAdminTellsWhatHappened(t *testing.T) {
	s := sidecartest.Start(t, nil)
	if _, err := s.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, "kjv")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"/healthz":         {""},
		"/readyz":          {`"ready"`, `"policy"`},
		"/metrics":         {`semproxy_pages_total{`, `tenant="acme"`, `semproxy_ratio_bucket`, `semproxy_fidelity_attention_error`},
		"/api/v1/policies": {`"half"`, `"maxAttentionError":0.9`},
		"/api/v1/tenants":  {`"acme"`, `"objects":1`},
		"/version":         {`cpu:`},
	} {
		resp, err := http.Get(s.AdminURL() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s %v\n%s", path, resp.Status, err, body)
		}
		for _, w := range want {
			if !strings.Contains(string(body), w) {
				t.Errorf("%s does not show %s:\n%s", path, w, body[:min(len(body), 2000)])
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestStatAndGet(t *testing.T) {
	s := sidecartest.Start(t, nil)
	c := s.Client(t, "acme", client.Options{})
	first, err := c.Compress(context.Background(), sidecartest.Page(t, "kjv"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(context.Background(), first.Header.Get(sidecar.HeaderObject))
	if err != nil || string(got.Body) != string(first.Body) {
		t.Errorf("get: %v, the same bytes: %v", err, err == nil && string(got.Body) == string(first.Body))
	}
	stat, err := c.Stat(context.Background())
	if err != nil || !strings.Contains(string(stat.Body), `"objects":1`) {
		t.Errorf("stat: %v", err)
	}
	var ce *client.Error
	if _, err := s.Client(t, "slow", client.Options{}).Get(context.Background(), first.Header.Get(sidecar.HeaderObject)); !errors.As(err, &ce) || ce.Code != "not_found" {
		t.Errorf("another tenant asks for the object: %v, want not_found", err)
	}
	if _, err := c.Get(context.Background(), "../../etc/passwd"); !errors.As(err, &ce) || ce.Code != "store.bad_key" {
		t.Errorf("a path as a key: %v, want store.bad_key", err)
	}
}
