package grafana

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
	"github.com/semproxy/semproxy/transport/shm"
)

// key is an API key of the tenant acme.
const key = "sp-0123456789abcdefghijklmnopqrstuvwxyz"

const rules = `apiVersion: semproxy.io/v1
profiles:
  half: { method: weighted, ratio: 0.5, guard: { maxAttentionError: 0.9 }, store: { ttl: 1h } }
tenants:
  acme: { limits: { queuedBytes: 64MiB }, rules: [ { profile: half } ] }
  globex: { limits: { pagesPerSecond: 1, requestsPerSecond: 1 }, rules: [ { profile: exact } ] }
`

// sidecar is the program as it runs beside an engine.
type sidecar struct {
	admin, proxy, policy string
	sender               *client.Client
	pages                [][]byte
	sent                 int
}

func startSidecar(t *testing.T) *sidecar {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "semproxy")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "nogpu", "-o", bin, "../../cmd/semproxy").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sum := sha256.Sum256([]byte(key))
	write(t, filepath.Join(dir, "keys.yaml"), "keys:\n  - { tenant: acme, sha256: "+hex.EncodeToString(sum[:])+" }\n")
	s := &sidecar{admin: "127.0.0.1:" + port(t), proxy: "127.0.0.1:" + port(t), policy: filepath.Join(dir, "policy.yaml")}
	nats, socket := "127.0.0.1:"+port(t), filepath.Join(dir, "s.sock")
	write(t, s.policy, rules)
	engine := httptest.NewServer(http.HandlerFunc(engine))
	t.Cleanup(engine.Close)
	run(t, filepath.Join(dir, "semproxy.log"), bin, "serve", "--policy-path", s.policy, "--admin-listen", s.admin, "--nats-embedded-listen", nats,
		"--proxy-listen", s.proxy, "--proxy-engine-url", engine.URL, "--proxy-identity-keys-file", filepath.Join(dir, "keys.yaml"),
		"--jobs-dir", filepath.Join(dir, "jobs"), "--jobs-enabled", "--shared-memory-socket", socket, "--store-dir", filepath.Join(dir, "store"))
	await(t, "the sidecar", "http://"+s.admin+"/readyz/pages")
	for _, name := range []string{"kjv", "kjv_facts"} {
		page, err := os.ReadFile("../../configs/demo/" + name + ".page.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		s.pages = append(s.pages, page)
	}
	var err error
	s.sender, err = client.Dial("nats://"+nats, transport.ConnectOptions{}, client.Options{Tenant: "acme", SharedMemory: shm.Options{Socket: socket, RegionBytes: 16 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.sender.Close)
	return s
}

// traffic is some of everything: pages that are compressed and stored, one that is refused, a job, answers whole and as events, a
// request without a key, a reload that is applied and one that is rejected.
func (s *sidecar) traffic(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.sent++
	blob := fresh(t, s.pages[0], s.sent)
	for range 2 { // compressed, then from the store
		if _, err := s.sender.Compress(ctx, blob); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.sender.Compress(ctx, []byte("no page")); err == nil {
		t.Error("what is no page was taken")
	}
	if _, err := s.sender.Submit(ctx, "job-"+strconv.Itoa(s.sent), s.pages[1]); err != nil {
		t.Errorf("job: %v", err)
	}
	for _, body := range []string{`{"model":"m","messages":[{"role":"user","content":"hi"}]}`, `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`} {
		if status := s.ask(t, key, body); status != http.StatusOK {
			t.Errorf("%s: got %d", body, status)
		}
		if status := s.ask(t, "wrong", body); status != http.StatusUnauthorized {
			t.Errorf("without a key: got %d", status)
		}
	}
	text := rules + fmt.Sprintf("# %d\n", s.sent)
	if s.sent%2 == 0 {
		text = strings.Replace(text, "profile: half", "profile: nope", 1)
	}
	write(t, s.policy, text)
}

// fresh is the page under an id that the store has not seen.
func fresh(t *testing.T, blob []byte, n int) []byte {
	t.Helper()
	p, err := page.Decode(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int64, p.Tokens)
	for i := range ids {
		ids[i] = p.TokenIDs.At(i)
	}
	ids[0] = int64(n)
	p.TokenIDs = page.Ints64Of(ids)
	if blob, err = p.Append(nil); err != nil {
		t.Fatal(err)
	}
	return blob
}

func (s *sidecar) ask(t *testing.T, key, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.proxy+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// engine answers as vLLM does, whole or as events.
func engine(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	const usage = `"usage":{"prompt_tokens":200,"completion_tokens":4,"total_tokens":204}`
	if !bytes.Contains(body, []byte(`"stream":true`)) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],`+usage+`}`)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 4 {
		_, _ = fmt.Fprintf(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"t%d\"}}]}\n\n", i)
		w.(http.Flusher).Flush()
		time.Sleep(2 * time.Millisecond)
	}
	_, _ = io.WriteString(w, "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[],"+usage+"}\n\ndata: [DONE]\n\n")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func port(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}
