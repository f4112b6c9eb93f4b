package forward_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/semproxy/semproxy/proxy/forward"
)

// Every path that a stranger may think of, beyond those of the table, is refused; those that compute a prompt are salted, and those
// that generate are told the tenant and its policy.
func TestNoPathComputesAPromptWithoutItsTenant(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	forged := `"kv_transfer_params":{"tenant":"globex"},"ec_transfer_params":{"peer_host":"evil"},"cache_salt":"evil","vllm_xargs":{"a":1,"kv_transfer_params":{"x":"evil"}},"extra_args":{"sampling_params":{"cache_salt":"evil"}}`
	for path, want := range map[string]string{
		"/v1/chat/completions": "generate", "/v1/chat/completions/batch": "generate", "/v1/completions": "generate", "/v1/responses": "generate", "/v1/messages": "generate",
		"/generate": "generate", "/generate_stream": "generate", "/": "generate",
		"/v1/embeddings": "embed", "/v2/embed": "embed", "/pooling": "embed", "/classify": "embed", "/score": "embed", "/v1/score": "embed", "/rerank": "embed", "/v1/rerank": "embed", "/v2/rerank": "embed",
		"/v1/decisions": "no", "/v1/systemone": "no", "/generative_scoring": "no", "/inference/v1/generate": "no", "/invocations": "no", "/v1/audio/translations": "no", "/cohere/v2/chat": "no",
		"/vertex": "no", "/v1/chat/completions/render": "no", "/v1/chat/completions/derender": "no", "/v1/new": "no", "/v1/chat/completions/": "no", "/v1/chat/completions/x": "no", "/collective_rpc": "no", "/v1/load_lora_adapter": "no",
	} {
		before := len(e.requests())
		got := s.call(t, "POST", path, acmeKey, `{"model":"m","messages":[],"prompt":"x","input":"x","inputs":"x",`+forged+`}`)
		if want == "no" {
			if got.status != 404 || len(e.requests()) != before {
				t.Errorf("%s: got %d, and %d at the engine, want 404 and none", path, got.status, len(e.requests())-before)
			}
			continue
		}
		body := e.last(t).body
		var sent struct {
			KV   *forward.KVParams `json:"kv_transfer_params"`
			Salt string            `json:"cache_salt"`
		}
		if err := json.Unmarshal([]byte(body), &sent); err != nil || len(e.requests()) != before+1 {
			t.Errorf("%s: got %d, %v", path, got.status, err)
		}
		if strings.Contains(body, "evil") || strings.Contains(body, "globex") || len(sent.Salt) != 32 || (want == "generate") != (sent.KV != nil && sent.KV.Tenant == "acme" && sent.KV.PolicyDigest != "") {
			t.Errorf("%s: got %s, want the tenant's salt, and its parameters where it generates", path, body)
		}
	}
}

// A form that a policy lets pass brings nothing that only the proxy may send.
func TestFormsBringNothingPrivate(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	part := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	form := part("model", "m") + part("vllm_xargs", `{"kv_transfer_params":"evil"}`) + part("cache_salt", "evil") + part("language", "en") + part("kv_transfer_params", "evil") + "--b--\r\n"
	want := part("model", "m") + part("language", "en") + "--b--\r\n"
	if got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, form, "Content-Type: multipart/form-data; boundary=b"); got.status != 200 || e.last(t).body != want {
		t.Errorf("got %d, %q, want %q", got.status, e.last(t).body, want)
	}
	if got := s.call(t, "POST", "/v1/audio/transcriptions", poorKey, form, "Content-Type: multipart/form-data; boundary=b"); got.status != 404 {
		t.Errorf("a tenant whose policy does not name it: got %d, want 404", got.status)
	}
	if got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, "no form", "Content-Type: multipart/form-data; boundary=b"); got.status != 400 {
		t.Errorf("no form: got %d %s, want 400", got.status, got.body)
	}
}

func TestRoutersAreRefusedUnlessTheyAreKnown(t *testing.T) {
	e := startEngine(t, false)
	ask := func(s *proxied) answer {
		return s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hi", 1, `,"kv_transfer_params":{"do_remote_decode":true,"tenant":"globex"}`))
	}
	s := startProxy(t, e.URL, nil)
	if got := ask(s); got.status != 403 || !strings.Contains(got.body, "request.relay") || len(e.requests()) != 0 {
		t.Errorf("got %d %s, want 403 request.relay", got.status, got.body)
	}
	ask(s)
	if n := strings.Count(s.log.String(), "router_refused"); n != 1 {
		t.Errorf("it is in the log %d times, want once", n)
	}
	s = startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) {
		c.RelayPeers = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	got := ask(s)
	if body := e.last(t).body; got.status != 200 || !strings.Contains(body, `"do_remote_decode":true`) || !strings.Contains(body, `"tenant":"acme"`) || strings.Contains(body, "globex") {
		t.Errorf("a known router: got %d, %s, want its members beside the proxy's own", got.status, body)
	}
	if !strings.Contains(got.body, `"kv_transfer_params":{"object":"returned"}`) {
		t.Errorf("a known router: got %s, want what the engine returned", got.body)
	}
}

func TestCompressedBodiesAreUnpackedWithinTheLimit(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, _ *forward.ServerConfig) { c.MaxJSON = 100_000 })
	pack := map[string]func(text string) string{
		"gzip": func(text string) string {
			var b bytes.Buffer
			w := gzip.NewWriter(&b)
			_, _ = io.WriteString(w, text)
			_ = w.Close()
			return b.String()
		},
		"zstd": func(text string) string {
			w, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			return string(w.EncodeAll([]byte(text), nil))
		},
	}
	for coding, pack := range pack {
		body := chat("hi", 100, "")
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, pack(body), "Content-Encoding: "+coding); got.status != 200 {
			t.Errorf("%s: got %d %s, want 200", coding, got.status, got.body)
		}
		if r := e.last(t); r.header.Get("Content-Encoding") != "" || !strings.HasPrefix(r.body, body[:len(body)-1]) {
			t.Errorf("%s: got %v %.200s, want it unpacked", coding, r.header, r.body)
		}
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, pack(chat("", 1_000_000, "")), "Content-Encoding: "+coding); got.status != 413 {
			t.Errorf("%s of 5 MB: got %d, want 413", coding, got.status)
		}
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, "no"+pack(body), "Content-Encoding: "+coding); got.status != 400 || !strings.Contains(got.body, "request.bad_encoding") {
			t.Errorf("what is not %s: got %d %s, want 400", coding, got.status, got.body)
		}
	}
}

// What zstd's highest levels need for a window is more than anybody may ask for, and the client is told so.
func TestAWideWindowIsRefusedWithWhatToDo(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(16<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{chat("hi", 100_000, ""), " "} {
		_, _ = io.WriteString(w, text)
		_ = w.Flush()
	}
	_ = w.Close()
	if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, b.String(), "Content-Encoding: zstd"); got.status != 415 || !strings.Contains(got.body, "window") {
		t.Errorf("got %d %s, want 415 and a sentence on the window", got.status, got.body)
	}
}

// closing is an engine that closes a kept connection when the next request arrives, without a byte of an answer.
func closing(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); group.Wait() })
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer func() { _ = conn.Close() }()
				r := bufio.NewReader(conn)
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"choices\":[]}")
				_, _ = r.ReadByte() // the next request
			})
		}
	})
	return "http://" + listener.Addr().String()
}

func TestARequestThatMeetsAClosedConnectionIsSentAgain(t *testing.T) {
	s := startProxy(t, closing(t), nil)
	for _, size := range []int{1, 100_000, 400_000} {
		for range 5 {
			if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("", size, "")); got.status != 200 {
				t.Errorf("a body of %d words: got %d %s, want 200", size, got.status, got.body)
			}
		}
	}
}

func TestBrowsersMayCallAsTheEngineSays(t *testing.T) {
	var broken atomic.Bool
	target := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		if r.Header.Get("Authorization") != "" && r.Method == http.MethodOptions {
			t.Error("a preflight carried a credential")
		}
		w.Header().Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Methods", "POST")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"choices":[]}`)
	})
	const origin = "Origin: https://ui.example"
	ask := func(s *proxied, path string) answer {
		return s.call(t, "OPTIONS", path, "", "", origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type")
	}
	for _, c := range []struct {
		cors             forward.CORS
		status           int
		preflight, later string
	}{
		{forward.CORS{}, 200, "*", "*"},
		{forward.CORS{Mode: forward.CORSOff}, 405, "", ""},
		{forward.CORS{Mode: forward.CORSList, Origins: []string{"https://ui.example"}}, 200, "https://ui.example", "https://ui.example"},
		{forward.CORS{Mode: forward.CORSList, Origins: []string{"https://other.example"}}, 403, "", ""},
	} {
		s := startProxy(t, target, func(cfg *forward.Config, _ *forward.ServerConfig) { cfg.CORS = c.cors })
		if got := ask(s, "/v1/chat/completions"); got.status != c.status || got.header.Get("Access-Control-Allow-Origin") != c.preflight {
			t.Errorf("%+v: a preflight got %d, %v, want %d and %q", c.cors, got.status, got.header, c.status, c.preflight)
		}
		if got := ask(s, "/collective_rpc"); got.status == 200 {
			t.Errorf("%+v: a preflight for a path that is not forwarded got %d", c.cors, got.status)
		}
		named := c.status
		if c.cors.Mode == forward.CORSOff {
			named = 404 // as without a credential
		}
		if got := ask(s, "/v1/audio/transcriptions"); got.status != named || got.header.Get("Access-Control-Allow-Origin") != c.preflight {
			t.Errorf("%+v: a preflight for a path that a policy names got %d, %v, want %d and %q", c.cors, got.status, got.header, named, c.preflight)
		}
		if got := s.call(t, "GET", "/health", "", "", origin); got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != c.later {
			t.Errorf("%+v: health got %d, %v, want %q", c.cors, got.status, got.header, c.later)
		}
		broken.Store(true)
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, `{"messages":[]}`, origin); got.status != 502 || got.header.Get("Access-Control-Allow-Origin") != c.later {
			t.Errorf("%+v: an engine that breaks off got %d, %v, want 502 and %q", c.cors, got.status, got.header, c.later)
		}
		broken.Store(false)
		for name, key := range map[string]string{"an answer": acmeKey, "a refusal": "wrong"} {
			if got := s.call(t, "POST", "/v1/chat/completions", key, `{"messages":[]}`, origin); got.header.Get("Access-Control-Allow-Origin") != c.later {
				t.Errorf("%+v: %s got %d, %v, want %q", c.cors, name, got.status, got.header, c.later)
			}
		}
	}
}

// A tenant with slow uploads takes neither others' memory nor their connections, and what it took comes back.
func TestSlowUploadsTakeNothingFromOthers(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, func(c *forward.Config, l *forward.ServerConfig) {
		c.MaxJSON, c.Buffered, c.BufferedEach, c.ClientTimeout = 1<<20, 4<<20, 2<<20, 3*time.Second
		l.Connections = 300
	})
	address := strings.TrimPrefix(s.URL(), "http://")
	open := func(text string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		return conn
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range 600 { // half of them say who they are, the others send half a header, or nothing
		text := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{", acmeKey)
		conns = append(conns, open([]string{text, "POST /v1/ch", text, ""}[i%4]))
	}
	var failed atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 25 {
				if got := s.call(t, "POST", "/v1/chat/completions", freeKey, chat("", 300, "")); got.status != 200 {
					failed.Add(1)
					t.Errorf("another tenant: got %d %s, %v", got.status, got.body, got.err)
				}
			}
		})
	}
	group.Wait()
	_ = conns[0].SetReadDeadline(time.Now().Add(20 * time.Second))
	if response, err := http.ReadResponse(bufio.NewReader(conns[0]), nil); err == nil { // else it made room for another
		if _ = response.Body.Close(); response.StatusCode != http.StatusRequestTimeout && response.StatusCode != http.StatusServiceUnavailable && response.StatusCode != http.StatusTooManyRequests {
			t.Errorf("a slow upload: got %d, want it given up", response.StatusCode)
		}
	}
}

func TestTheHealthOfTheEngineIsSharedAndHasNoBody(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	for range 50 {
		if got := s.call(t, "GET", "/health", "", ""); got.status != 200 {
			t.Errorf("got %d, want 200", got.status)
		}
	}
	if n := len(e.requests()); n > 25 {
		t.Errorf("got %d questions at the engine for 50, want few", n)
	}
	if got := s.call(t, "GET", "/health", "", strings.Repeat("x", 1000)); got.status != 400 {
		t.Errorf("with a body: got %d, want 400", got.status)
	}
}
