package forward_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/forward"
	"github.com/semproxy/semproxy/proxy/limit"
)

func TestATenantsQueueIsBounded(t *testing.T) {
	e := startEngine(t, false)
	admission := limit.New(limit.Options{})
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.Admission = admission })
	var group sync.WaitGroup
	for i := range 2 { // one is served, one waits
		group.Go(func() {
			if got := s.call(t, "POST", "/v1/chat/completions", slowKey, chat("wait", 1, "")); got.status != 200 {
				t.Errorf("got %d %s, want 200", got.status, got.body)
			}
		})
		until(t, func() bool { l := admission.Loads()["slow"]; return l.Active+l.Waiting == i+1 })
	}
	got := s.call(t, "POST", "/v1/chat/completions", slowKey, chat("", 1, ""))
	if got.status != 429 || got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, "limit.queue_full") || !strings.Contains(got.body, "rate_limit_error") {
		t.Errorf("got %d, %v, %s, want 429 limit.queue_full", got.status, got.header, got.body)
	}
	if got := s.call(t, "GET", "/v1/models", acmeKey, ""); got.status != 200 {
		t.Errorf("another tenant: got %d, want 200", got.status)
	}
	e.free <- struct{}{}
	e.free <- struct{}{}
	group.Wait()
}

func TestTokensAreCountedAsTheEngineSays(t *testing.T) {
	e := startEngine(t, false)
	now := atomic.Pointer[time.Time]{}
	start := time.Now()
	now.Store(&start)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) {
		c.Admission = limit.New(limit.Options{Now: func() time.Time { return *now.Load() }})
	})
	// 60 tokens a minute. The prompt has 2 tokens, the answer 100: the next request waits for 42 of them, and its own.
	got := s.call(t, "POST", "/v1/completions", poorKey, `{"prompt":"hello worl","stream":true,"max_tokens":100}`)
	if got.status != 200 || strings.Contains(got.body, "usage") {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	s.done(t)
	refused := s.call(t, "POST", "/generate", poorKey, `{"inputs":"hello worl"}`)
	if refused.status != 429 || refused.header.Get("Retry-After") != "44" || !strings.Contains(refused.body, `"error_type":"limit.tokens"`) {
		t.Errorf("got %d, Retry-After %s, %s, want 429 limit.tokens after 44 s", refused.status, refused.header.Get("Retry-After"), refused.body)
	}
	later := start.Add(44 * time.Second)
	now.Store(&later)
	if got := s.call(t, "POST", "/generate", poorKey, `{"inputs":"hello worl"}`); got.status != 200 {
		t.Errorf("after the wait: got %d %s, want 200", got.status, got.body)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) {
		c.MaxJSON, c.MaxBody, c.Buffered = 10_000, 1<<20, 1<<20
	})
	big := chat("", 4000, "")
	if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, big); got.status != 413 || !strings.Contains(got.body, "request.too_large") {
		t.Errorf("a long body: got %d %s, want 413", got.status, got.body)
	}
	r := newRequest(t, "POST", s.URL()+"/v1/chat/completions", acmeKey, big)
	r.ContentLength = -1 // in chunks: its length is not said
	if response, err := http.DefaultClient.Do(r); err != nil || response.StatusCode != 413 {
		t.Errorf("a long body in chunks: got %v, %v, want 413", response, err)
	} else {
		_ = response.Body.Close()
	}
	if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 1000, "")); got.status != 200 {
		t.Errorf("a short one after them: got %d, want 200", got.status)
	}
	upload, kind := form(t, 1<<19)
	if got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, upload, "Content-Type: "+kind); got.status != 200 || e.last(t).body != upload {
		t.Errorf("a form: got %d, want it at the engine as it was", got.status)
	}
	upload, kind = form(t, 2<<20)
	if got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, upload, "Content-Type: "+kind); got.status != 413 {
		t.Errorf("a long form: got %d, want 413", got.status)
	}
	for kind, coding := range map[string]string{"text/plain": "", "application/x-www-form-urlencoded": "", "application/json": "br"} {
		got := s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"model":"m"}`, "Content-Type: "+kind, "Content-Encoding: "+coding)
		if got.status != 415 {
			t.Errorf("%s %s: got %d, want 415", kind, coding, got.status)
		}
	}
	// A form cannot carry past what is looked at on a route that produces tokens.
	if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"kv_transfer_params":{}}`, "Content-Type: multipart/form-data; boundary=x"); got.status != 415 {
		t.Errorf("a form for a chat: got %d, want 415", got.status)
	}
	if got := s.call(t, "GET", "/v1/models", acmeKey, "", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"); got.status != 200 || e.last(t).header.Get("Upgrade") != "" {
		t.Errorf("an offer of h2c: got %d, want it unanswered and not passed on", got.status)
	}
	if got := s.call(t, "GET", "/v1/realtime", acmeKey, "", "Connection: Upgrade", "Upgrade: websocket"); got.status != 400 {
		t.Errorf("an upgrade: got %d, want 400", got.status)
	}
}

// A stream that goes on does not hold its prompt: what the engine has all of is let go with one of the next events.
func TestALongStreamDoesNotHoldItsPrompt(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.Buffered = 26_000 })
	const events = 1000
	response, err := http.DefaultClient.Do(newRequest(t, "POST", s.URL()+"/v1/chat/completions", acmeKey, chat("step", 1000, fmt.Sprintf(`,"stream":true,"max_tokens":%d`, events))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	defer close(e.free) // the engine goes on to its end
	lines := bufio.NewReader(response.Body)
	for i := range events {
		if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "data: ") {
			t.Fatalf("event %d: got %q, %v", i, line, err)
		}
		_, _ = lines.ReadString('\n')
		got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 1000, ""))
		if got.status == 200 {
			return
		}
		if got.status != 503 || !strings.Contains(got.body, "request.memory") || got.header.Get("Retry-After") == "" {
			t.Fatalf("while the prompt is held: got %d, %v, %s, want 503", got.status, got.header, got.body)
		}
		e.free <- struct{}{}
	}
	t.Error("the prompt was held to the end of the stream")
}

func form(t *testing.T, size int) (body, kind string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("file", "a.wav")
	if err == nil {
		_, err = part.Write(bytes.Repeat([]byte("x"), size))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

// An upload passes while it is being sent: the engine has its beginning before the client has sent its end.
func TestAnUploadIsNotHeldBack(t *testing.T) {
	began := make(chan struct{})
	target := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 100))
		close(began)
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n+100)
	})
	s := startProxy(t, target, nil)
	reader, writer := io.Pipe()
	const head, tail = "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n", "\r\n--x--\r\n"
	go func() {
		_, _ = writer.Write([]byte(head + strings.Repeat("x", 20_000)))
		<-began
		_, _ = writer.Write([]byte(strings.Repeat("x", 30_000) + tail))
		_ = writer.Close()
	}()
	r := newRequest(t, "POST", s.URL()+"/v1/audio/transcriptions", acmeKey, "", "Content-Type: multipart/form-data; boundary=x")
	r.Body, r.ContentLength = reader, -1
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if body, _ := io.ReadAll(response.Body); string(body) != strconv.Itoa(len(head)+50_000+len(tail)) {
		t.Errorf("got %s bytes, want all", body)
	}
}

// raw sends bytes as they are and reads all that comes back until the proxy closes.
func raw(t *testing.T, s *proxied, text string, end bool) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		return "" // refused while it was being sent
	}
	if end {
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err.Error()
		}
		_ = response.Body.Close()
		return response.Status
	}
	all, _ := io.ReadAll(conn)
	return string(all)
}

func TestSmugglingAndSlowClients(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, l *forward.ServerConfig) {
		c.ClientTimeout, l.HeaderTimeout = 50*time.Millisecond, 50*time.Millisecond
	})
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + acmeKey + "\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"two lengths":             {head + "Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}", "400"},
		"length with a sign":      {head + "Content-Length: +2\r\n\r\n{}", "400"},
		"unknown coding":          {head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501"},
		"two codings":             {head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "501"},
		"space before the colon":  {head + "Content-Length : 2\r\n\r\n{}", "400"},
		"folded header":           {"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\nX\r\n\r\n", "400"},
		"a header of 100 KiB":     {"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 100<<10) + "\r\n\r\n", "431"},
		"a zero in a header":      {"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", "400"},
		"an absolute URL":         {"GET http://evil/admin HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		"CONNECT":                 {"CONNECT evil:443 HTTP/1.1\r\nHost: x\r\n\r\n", "404"},
		"headers that never end":  {"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a", ""},
		"a body that never comes": {head + "Content-Length: 100\r\n\r\n{", "408"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(e.requests())
			got := raw(t, s, c.text, c.want != "")
			if c.want != "" && got != "" && !strings.HasPrefix(got, c.want) {
				t.Errorf("got %.100q, want %s", got, c.want)
			}
			if n := len(e.requests()) - before; n != 0 {
				t.Errorf("%d requests reached the engine, want none", n)
			}
		})
	}
	// A length beside chunks: the chunks count, and what follows them is not part of the engine's request.
	text := head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n"
	if got := raw(t, s, text, true); !strings.HasPrefix(got, "200") {
		t.Errorf("length and chunks: got %s", got)
	}
	if r := e.last(t); r.path != "/v1/chat/completions" || r.header.Get("Transfer-Encoding") != "" {
		t.Errorf("length and chunks: got %+v at the engine, want one request", r)
	}
}

// Every request is decided by one policy as a whole: the profile, the limits and the version that it was given go together.
func TestAReloadUnderLoadShowsNobodyHalfAPolicy(t *testing.T) {
	e := startEngine(t, false)
	var sets []*policy.Set
	for _, text := range []string{
		"{ method: semantic, ratio: 0.5 }", "{ method: semantic, ratio: 0.25 }",
	} {
		set, err := policy.Compile(policy.Source{Name: "p.yaml", Data: []byte("apiVersion: semproxy.io/v1\nprofiles: { p: " + text + " }\ntenants: { acme: { rules: [ { profile: p } ] } }\n")})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, set)
	}
	var turn atomic.Int64
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) {
		c.Policy = func() *policy.Set { return sets[turn.Add(1)%2] } // another policy at every look
	})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", 100, "")); got.status != 200 {
					t.Errorf("got %d %s, want 200", got.status, got.body)
				}
			}
		})
	}
	group.Wait()
	ratio := map[string]float64{sets[0].Version(): 0.5, sets[1].Version(): 0.25}
	for _, r := range s.ring.List() {
		if r.Decision != nil && (r.Decision.Plan.Ratio != ratio[r.Decision.Version] || r.Decision.PolicyDigest != r.Decision.Plan.Digest()) {
			t.Errorf("got ratio %v of version %s", r.Decision.Plan.Ratio, r.Decision.Version)
		}
	}
	if n := turn.Load(); n != 160 {
		t.Errorf("the policy was asked %d times for 160 requests, want once each", n)
	}
}
