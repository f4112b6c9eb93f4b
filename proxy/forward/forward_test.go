package forward_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/recent"
)

func TestRoutes(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	for _, c := range []struct {
		method, path, key, body string
		status                  int
		want                    string // part of the body
	}{
		{"GET", "/v1/models", acmeKey, "", 200, `{"path":"/v1/models"}`},
		{"POST", "/tokenize", acmeKey, `{"prompt":"a"}`, 200, "/tokenize"},
		{"POST", "/detokenize", acmeKey, `{"tokens":[1]}`, 200, "/detokenize"},
		{"GET", "/health", "", "", 200, "/health"},
		{"GET", "/version", acmeKey, "", 200, "/version"},
		{"GET", "/info", acmeKey, "", 200, "/info"},
		{"GET", "/metrics", acmeKey, "", 200, "vllm:kv_cache_usage_perc"},
		{"POST", "/v1/responses/r1/cancel", acmeKey, "", 404, "response.not_found"},
		{"DELETE", "/v1/responses/r1", acmeKey, "", 404, "response.not_found"},
		{"GET", "/v1/empty404", acmeKey, "", 404, ""},
		{"POST", "/v1/chat/completions", acmeKey, chat("hi", 3, ""), 200, `"content":"hello"`},
		{"POST", "/v1/chat/completions", acmeKey, chat("error", 3, ""), 400, "BadRequestError"},
		{"POST", "/generate", acmeKey, `{"inputs":"hi","parameters":{"max_new_tokens":2}}`, 200, "hello"},
		{"GET", "/v1/models", "", "", 401, `"type":"authentication_error"`},
		{"GET", "/metrics", "", "", 401, "identity.missing"},
		{"GET", "/v1/models", "wrong", "", 401, "identity.unknown_key"},
		{"GET", "/v1/models", evilKey, "", 403, "policy.denied"},
		{"GET", "/info", "", "", 401, `"error_type":"identity.missing"`},
		{"POST", "/generate_stream", "", `{}`, 401, `"error_type":"identity.missing"`},
		{"POST", "/v1/audio/translations", acmeKey, `{}`, 404, "route.not_found"},
		{"GET", "/v1/empty404", poorKey, "", 404, "route.not_found"},
		{"GET", "/docs", acmeKey, "", 404, "route.not_found"},
		{"POST", "/v1/load_lora_adapter", acmeKey, `{}`, 404, "route.not_found"},
		{"GET", "/v1/%2e%2e/docs", acmeKey, "", 404, "route.not_found"},
		{"GET", "//v1/models", acmeKey, "", 404, "route.not_found"},
		{"PATCH", "/v1/models", acmeKey, "", 405, "route.method"},
		{"POST", "/v1/chat/completions", acmeKey, `{"model":`, 400, "request.bad_json"},
		{"POST", "/v1/chat/completions", acmeKey, ``, 415, "request.media_type"},
	} {
		got := s.call(t, c.method, c.path, c.key, c.body)
		if got.status != c.status || !strings.Contains(got.body, c.want) || c.want == "" && got.body != "" || got.err != nil {
			t.Errorf("%s %s: got %d %q, %v, want %d %q", c.method, c.path, got.status, got.body, got.err, c.status, c.want)
		}
		if got.header.Get("X-Request-Id") == "" {
			t.Errorf("%s %s: got no X-Request-Id", c.method, c.path)
		}
		if c.status == 401 && got.header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s %s: got no WWW-Authenticate", c.method, c.path)
		}
	}
	for _, r := range e.requests() {
		for _, secret := range []string{acmeKey, evilKey} {
			if strings.Contains(fmt.Sprint(r), secret) {
				t.Errorf("%s %s: the client's key reached the engine", r.method, r.path)
			}
		}
	}
}

func TestWhatTheEngineIsGiven(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.EngineKey = func() string { return "engine-key" } })
	body := chat("hi", 200, `,"seed":12345678901234567890,"temperature":0.10000000000000000001,"kv_transfer_params":{"tenant":"globex"},"cache_salt":"mine","x":{"y":[1]}`)
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, body,
		"X-Request-Id: my-id", "Semproxy-Tenant: globex", "Connection: X-Hop", "X-Hop: 1", "X-Forwarded-For: 10.0.0.1", "Cookie: a=b")
	r := e.last(t)
	if got.status != 200 || got.header.Get("X-Request-Id") != "my-id" || r.header.Get("X-Request-Id") != "my-id" {
		t.Errorf("got %d, %v, want the client's request id in the answer and at the engine", got.status, got.header)
	}
	if r.header.Get("Authorization") != "Bearer engine-key" {
		t.Errorf("Authorization: got %q, want the engine's own key", r.header.Get("Authorization"))
	}
	for _, name := range []string{"Semproxy-Tenant", "X-Hop", "Connection"} {
		if v := r.header.Get(name); v != "" {
			t.Errorf("%s: got %q, want it gone", name, v)
		}
	}
	if v := r.header.Get("X-Forwarded-For"); v != "127.0.0.1" {
		t.Errorf("X-Forwarded-For: got %q, want the connection's peer alone", v)
	}
	for _, part := range []string{`"seed":12345678901234567890`, `"temperature":0.10000000000000000001`, `"x":{"y":[1]}`} {
		if !strings.Contains(r.body, part) {
			t.Errorf("got %.200s, want %s in it", r.body, part)
		}
	}
	var sent struct {
		KV   forward.KVParams `json:"kv_transfer_params"`
		Salt string           `json:"cache_salt"`
	}
	if err := json.Unmarshal([]byte(r.body), &sent); err != nil {
		t.Fatal(err)
	}
	s.done(t)
	record, ok := s.ring.Get("my-id")
	if !ok || record.Decision == nil {
		t.Fatalf("got %+v, want the request remembered with its decision", record)
	}
	if sent.KV.Tenant != "acme" || !sent.KV.Compress || sent.KV.Object != record.Object || sent.KV.PolicyDigest != record.Decision.PolicyDigest {
		t.Errorf("got %+v, want the proxy's own parameters", sent.KV)
	}
	if len(sent.Salt) != 32 || sent.Salt == "mine" {
		t.Errorf("cache_salt: got %q, want the tenant's", sent.Salt)
	}
	if d := got.header.Values("Semproxy-Decision"); len(d) != 1 || d[0] != `compress; profile="half"; rule="tenants.acme.rules[0]"; gate="learning"; adapter="none seen"` {
		t.Errorf("Semproxy-Decision: got %q", d)
	}
	if strings.Contains(got.body, "kv_transfer_params") || !strings.Contains(got.body, `"content":"hello"`) || got.header.Get("Content-Length") != strconv.Itoa(len(got.body)) {
		t.Errorf("got %v %s, want the answer without what the engine returned of its KV", got.header, got.body)
	}
	if record.PromptTokens != 200 || record.OutputTokens != 3 || string(record.KV) != `{"object":"returned"}` || !record.UsageKnown {
		t.Errorf("got %+v, want what the engine said", record)
	}

	got = s.call(t, "POST", "/v1/chat/completions", acmeKey, body)
	if d := got.header.Get("Semproxy-Decision"); !strings.HasPrefix(d, "compress") || strings.Contains(d, "adapter=") {
		t.Errorf("an adapter has worked for the model: got %q, want nothing said of it", d)
	}
	got = s.call(t, "POST", "/v1/chat/completions", acmeKey, body, "Semproxy-Compress: off")
	if d := got.header.Get("Semproxy-Decision"); !strings.HasPrefix(d, "exact") || !strings.Contains(d, "client_asked") {
		t.Errorf("Semproxy-Compress: off: got %q, want exact", d)
	}
	if got = s.call(t, "POST", "/v1/chat/completions", acmeKey, body, "Semproxy-Compress: maybe"); got.status != 400 {
		t.Errorf("Semproxy-Compress: maybe: got %d, want 400", got.status)
	}
}

func TestAnAnswerThatBreaksOffIsAnError(t *testing.T) {
	target := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[`)
		w.(http.Flusher).Flush()
		if strings.Contains(r.URL.Path, "chat") {
			panic(http.ErrAbortHandler)
		}
		<-r.Context().Done()
	})
	s := startProxy(t, target, func(c *forward.Config, _ *forward.ServerConfig) { c.IdleTimeout = 50 * time.Millisecond })
	if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 1, "")); got.status != 502 || !strings.Contains(got.body, "engine.broken") {
		t.Errorf("an engine that dies: got %d %s, %v, want 502 engine.broken", got.status, got.body, got.err)
	}
	if got := s.call(t, "POST", "/v1/completions", acmeKey, `{"prompt":"x"}`); got.status != 504 || !strings.Contains(got.body, "engine.timeout") {
		t.Errorf("an engine that stops: got %d %s, %v, want 504 engine.timeout", got.status, got.body, got.err)
	}
}

func TestLongAnswersPass(t *testing.T) {
	long := `{"choices":[{"text":"` + strings.Repeat("x", 3<<20) + `"}],"kv_transfer_params":null}`
	target := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, long)
	})
	s := startProxy(t, target, nil)
	want := strings.Replace(long, `,"kv_transfer_params":null`, "", 1)
	if got := s.call(t, "POST", "/v1/completions", acmeKey, `{"prompt":"x"}`); got.body != want || got.err != nil {
		t.Errorf("got %d bytes, %v, want all %d", len(got.body), got.err, len(want))
	}
}

func TestTrailersOfARequestDoNotPass(t *testing.T) {
	seen := make(chan http.Header, 2)
	target := newTarget(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		trailer := r.Trailer.Clone()
		if v := r.Header.Get("Trailer"); v != "" {
			trailer.Set("Trailer", v)
		}
		seen <- trailer
	})
	s := startProxy(t, target, nil)
	upload, kind := form(t, 1<<10)
	for path, body := range map[string][2]string{"/v1/chat/completions": {chat("", 1, ""), "application/json"}, "/v1/audio/transcriptions": {upload, kind}} {
		r := newRequest(t, "POST", s.URL()+path, acmeKey, body[0], "Content-Type: "+body[1])
		r.ContentLength, r.Trailer = -1, http.Header{"Authorization-Of-Mine": {"x"}, "Semproxy-Tenant": {"globex"}}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := <-seen; len(got) != 0 || response.StatusCode != 200 {
			t.Errorf("%s: got %d, %v at the engine, want 200 and none", path, response.StatusCode, got)
		}
	}
}

func TestOtherEnginesAreGivenNothingOfOurs(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.Kind, c.HideDecision = forward.OpenAI, true })
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"model":"llama-3","kv_transfer_params":{},"cache_salt":"x"}`)
	if body := e.last(t).body; body != `{"model":"llama-3"}` {
		t.Errorf("got %s, want the body without what only the proxy may send", body)
	}
	if d := got.header.Get("Semproxy-Decision"); d != "" {
		t.Errorf("Semproxy-Decision: got %q, want none, the engine's forged one neither", d)
	}
}

func TestStreamsPassEventByEvent(t *testing.T) {
	for _, h2c := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2c=%v", h2c), func(t *testing.T) {
			e := startEngine(t, h2c)
			target := e.URL
			client := http.DefaultClient
			if h2c {
				target = strings.Replace(target, "http://", "h2c://", 1)
				transport := &http.Transport{Protocols: new(http.Protocols)}
				transport.Protocols.SetUnencryptedHTTP2(true)
				defer transport.CloseIdleConnections()
				client = &http.Client{Transport: transport}
			}
			s := startProxy(t, target, nil)
			response, err := client.Do(newRequest(t, "POST", s.URL()+"/v1/chat/completions", acmeKey, chat("step", 1, `,"stream":true,"max_tokens":2`)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			lines := bufio.NewReader(response.Body)
			for i := range 2 { // each event is here before the engine goes on
				line, err := lines.ReadString('\n')
				if want := fmt.Sprintf(`"t%d"`, i); err != nil || !strings.Contains(line, want) {
					t.Fatalf("got %q, %v, want %s", line, err, want)
				}
				_, _ = lines.ReadString('\n')
				e.free <- struct{}{}
			}
			rest, err := io.ReadAll(lines)
			if string(rest) != "data: [DONE]\n\n" || err != nil {
				t.Errorf("got %q, %v, want the end and no usage, which was not asked for", rest, err)
			}
			if got := e.last(t); !strings.Contains(got.body, `"include_usage":true`) || strings.HasPrefix(got.proto, "HTTP/2") != h2c {
				t.Errorf("got %s %.300s, want the usage asked for", got.proto, got.body)
			}
			if r := s.done(t); r.OutputTokens != 2 || r.Timings.FirstToken <= 0 || r.Timings.PerToken <= 0 || !r.Stream {
				t.Errorf("got %+v, want the usage and the times of a stream", r)
			}
		})
	}
}

func TestUsageThatTheClientAskedForPasses(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	got := s.call(t, "POST", "/v1/completions", acmeKey, `{"prompt":"hi","stream":true,"stream_options":{"include_usage":true}}`)
	if !strings.Contains(got.body, `"usage":{"prompt_tokens"`) || !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
		t.Errorf("got %q, want the usage in it", got.body)
	}
	got = s.call(t, "POST", "/generate_stream", acmeKey, `{"inputs":"hi hi hi hi"}`)
	if r := s.done(t); r.OutputTokens != 2 || r.PromptTokens != 2 || !strings.Contains(got.body, `"generated_tokens":2`) {
		t.Errorf("TGI: got %+v of %q, want its usage", r, got.body)
	}
}

// With gin's own recovery this looks to the client like a clean end of the stream.
func TestAnEngineThatDiesInMidStreamIsABrokenStream(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("die", 1, `,"stream":true`))
	if got.status != 200 || !strings.Contains(got.body, `"t0"`) || !errors.Is(got.err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d %q, %v, want the first event and %v", got.status, got.body, got.err, io.ErrUnexpectedEOF)
	}
	if r := s.done(t); r.Error != "engine.broken" {
		t.Errorf("got error %q, want engine.broken", r.Error)
	}
}

func TestAnEngineThatStopsIsGivenUp(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.IdleTimeout = 20 * time.Millisecond })
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hang", 1, `,"stream":true`))
	if got.status != 200 || got.err == nil {
		t.Errorf("got %d, %v, want the stream cut", got.status, got.err)
	}
	<-e.hung
	if r := s.done(t); r.Error != "engine.timeout" {
		t.Errorf("got error %q, want engine.timeout", r.Error)
	}
	s = startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.HeaderTimeout = 20 * time.Millisecond })
	got = s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hang", 1, ``))
	if got.status != 504 || !strings.Contains(got.body, "engine.timeout") {
		t.Errorf("got %d %s, want 504 engine.timeout", got.status, got.body)
	}
	<-e.hung
}

func TestAnEngineThatIsNotThere(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	e.Close()
	got := s.call(t, "POST", "/generate", acmeKey, `{"inputs":"a"}`)
	if got.status != 502 || !strings.Contains(got.body, `"error_type":"engine.unreachable"`) {
		t.Errorf("got %d %s, want 502 engine.unreachable", got.status, got.body)
	}
	if strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("the client was told the engine's address: %s", got.body)
	}
}

func TestAClientThatLeavesCancelsTheEngine(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	for _, rest := range []string{"", `,"stream":true`} {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRequest(t, "POST", s.URL()+"/v1/chat/completions", acmeKey, chat("hang", 1, rest)).WithContext(ctx)
		before := len(e.requests())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := http.DefaultClient.Do(r); err == nil {
				_, _ = io.Copy(io.Discard, response.Body)
				_ = response.Body.Close()
			}
		}()
		until(t, func() bool { return len(e.requests()) > before })
		cancel()
		<-e.hung
		<-done
		if r := s.done(t); r.Status != 499 || r.Error != "client.gone" {
			t.Errorf("%q: got %d %q, want 499 client.gone", rest, r.Status, r.Error)
		}
	}
}

func TestTrailersOfTheEngineAndOfThePages(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	if got := s.call(t, "GET", "/v1/trailers", acmeKey, ""); got.body != "body" || got.trailer.Get("X-Checksum") != "abc" {
		t.Errorf("got %q, %v, want the engine's trailer", got.body, got.trailer)
	}
	page := recent.Page{Tokens: 100, Ratio: 0.5, Measured: true, AttentionError: 0.1}
	done := make(chan answer, 1)
	go func() { done <- s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("wait", 200, "")) }()
	until(t, func() bool { return len(s.ring.List()) == 1 })
	page.Sequence = s.ring.List()[0].Object
	s.ring.Page("acme", "", page)
	e.free <- struct{}{}
	if got := <-done; got.header.Get("Semproxy-Ratio") != "0.5000" || got.header.Get("Semproxy-Fidelity") != "0.9000" {
		t.Errorf("a page before the answer: got %v, want it in the headers", got.header)
	}

	response, err := http.DefaultClient.Do(newRequest(t, "POST", s.URL()+"/v1/chat/completions", acmeKey, chat("step", 200, `,"stream":true,"max_tokens":1`)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	lines := bufio.NewReader(response.Body)
	if _, err := lines.ReadString('\n'); err != nil { // the answer has begun
		t.Fatal(err)
	}
	page.Sequence = s.ring.List()[0].Object
	s.ring.Page("acme", "", page)
	e.free <- struct{}{}
	if _, err := io.ReadAll(lines); err != nil {
		t.Fatal(err)
	}
	if got := response; got.Header.Get("Semproxy-Ratio") != "" || got.Trailer.Get("Semproxy-Ratio") != "0.5000" || got.Trailer.Get("Semproxy-Fidelity") != "0.9000" {
		t.Errorf("a page during the answer: got headers %v and trailers %v, want it in the trailers", got.Header, got.Trailer)
	}
}
