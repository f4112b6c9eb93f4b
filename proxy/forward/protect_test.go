package forward_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/spans"
)

const protecting = `
apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5, protect: { roles: [system] } } }
tenants: { acme: { rules: [ { profile: half } ] } }
`

// startProtecting is a proxy whose policy protects system messages; the engine tokenizes into words.
func startProtecting(t *testing.T, e *engine) *proxied {
	t.Helper()
	set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte(protecting)})
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	finder := spans.New(target, spans.Options{Transport: &http.Transport{}})
	t.Cleanup(finder.Close)
	return startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) {
		c.Policy, c.Spans = func() *policy.Set { return set }, finder
	})
}

func TestProtectedMessagesReachTheAdapter(t *testing.T) {
	e := startEngine(t, false)
	s := startProtecting(t, e)
	body := `{"model":"words","messages":[{"role":"system","content":"be very good"},{"role":"user","content":"hi` + strings.Repeat(" word", 300) + `"}]}`
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, body)
	var sent struct {
		KV forward.KVParams `json:"kv_transfer_params"`
	}
	if err := json.Unmarshal([]byte(e.last(t).body), &sent); err != nil {
		t.Fatal(err)
	}
	// <s> <|system|> be very good, then the user's.
	if got.status != 200 || len(sent.KV.Protect) != 1 || sent.KV.Protect[0] != (spans.Span{0, 5}) || !sent.KV.Compress {
		t.Errorf("got %d, %+v, want the first five tokens protected", got.status, sent.KV)
	}
	r := s.done(t)
	if r.Spans == nil || r.Spans.Outcome != "found" || r.Spans.Tokens != 5 || r.PromptEstimate != 5+1+301+1 || protected(s, "acme", r.Object) != 1 {
		t.Errorf("got %+v of %d tokens, want what was found, and the prompt's exact length", r.Spans, r.PromptEstimate)
	}
	if protected(s, "globex", r.Object) != -1 {
		t.Error("another tenant: got the spans")
	}
	// The stand-in counts a fifth of the bytes, not its own tokens: that is found out, and trusted no longer.
	if !r.Spans.Mismatch || !strings.Contains(s.log.String(), "tokenize_mismatch") {
		t.Errorf("got %+v, want the mismatch noticed", r.Spans)
	}
	s.call(t, "POST", "/v1/chat/completions", acmeKey, body)
	if r := s.done(t); r.Spans.Outcome != "distrusted" || r.Gate.Compress || r.Gate.Reason != "protected_unknown" {
		t.Errorf("after a mismatch: got %+v, %+v, want the prompt exact", r.Spans, r.Gate)
	}
}

func TestWhereMessagesAreNotFoundThePromptStaysExact(t *testing.T) {
	e := startEngine(t, false)
	s := startProtecting(t, e)
	long := strings.Repeat(" word", 300)
	for _, c := range []struct {
		name, path, body, outcome string
		compress                  bool
	}{
		{"an image", "/v1/chat/completions", `{"model":"words","messages":[{"role":"system","content":"x"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + long + `"}}]}]}`, "unsupported", false},
		{"no /tokenize", "/v1/chat/completions", `{"model":"untokenizable","messages":[{"role":"system","content":"x"},{"role":"user","content":"` + long + `"}]}`, "unavailable", false},
		{"no system message", "/v1/chat/completions", chat("", 300, ""), "none", true},
		{"no messages", "/v1/completions", `{"model":"words","prompt":"` + long + `"}`, "none", true},
	} {
		s.call(t, "POST", c.path, acmeKey, c.body)
		r := s.done(t)
		if r.Spans == nil || r.Spans.Outcome != c.outcome || r.Gate.Compress != c.compress {
			t.Errorf("%s: got %d, %+v, %+v, want %s", c.name, r.Status, r.Spans, r.Gate, c.outcome)
		}
		if body := e.last(t).body; strings.Contains(body, `"protect":[]`) != c.compress || strings.Contains(body, `"compress":true`) != c.compress {
			t.Errorf("%s: the engine got %.300s", c.name, body)
		}
	}
	// What is exact anyway is not searched.
	s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 300, ""), "Semproxy-Compress: off")
	if r := s.done(t); r.Spans != nil {
		t.Errorf("got %+v, want nothing searched", r.Spans)
	}
}

// protected is how many ranges of the request of an object's name are known; -1: it is not known.
func protected(s *proxied, tenant, object string) int {
	found, known := s.ring.Protected(tenant, object)
	if !known {
		return -1
	}
	return len(found)
}
