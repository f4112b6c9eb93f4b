package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// planeKills is how often a process is killed: SEMPROXY_TEST_PLANE_KILLS for longer forms.
func planeKills(t *testing.T) int { return countFrom(t, "SEMPROXY_TEST_PLANE_KILLS", 8) }

// apart are the two planes in processes of their own between a NATS server and a stand-in for an engine, or both in one.
type apart struct {
	t         *testing.T
	nats      string
	engine    *httptest.Server
	adapter   *client.Client // that of the engine
	proxy     string         // base URL
	admins    map[string]string
	args      []string
	processes map[string]*process // by what they run
	adapted   atomic.Int64        // pages of requests that were answered
	chat      *http.Client
	words     int           // of an answer
	pause     time.Duration // between two of them
	mu        sync.Mutex    // of sequence
	sequence  int           // of a page
}

func newApart(t *testing.T) *apart {
	t.Helper()
	a := &apart{t: t, nats: natsServer(t), admins: map[string]string{}, processes: map[string]*process{}, words: 12, pause: 25 * time.Millisecond, chat: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}}
	t.Cleanup(a.chat.CloseIdleConnections)
	a.engine = httptest.NewServer(http.HandlerFunc(a.answer))
	t.Cleanup(a.engine.Close)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	a.proxy = "http://" + address
	for _, planes := range []string{"both", "requests", "pages"} {
		a.admins[planes] = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	}
	a.args = []string{"--nats-url", a.nats, "--policy-path", writeSmallPolicy(t), "--proxy-listen", address, "--proxy-engine-url", a.engine.URL,
		"--proxy-identity-anonymous-tenant", "acme", "--proxy-gate-enabled=false", "--planes-socket", filepath.Join(t.TempDir(), "planes.sock")}
	a.adapter = dial(t, a.nats, patience("acme"))
	t.Cleanup(func() {
		for planes, p := range a.processes {
			if t.Failed() {
				t.Logf("the last log of %s:\n%s", planes, p.log)
			}
		}
	})
	return a
}

// patience are a sender's options that outlast every kill.
func patience(tenant string) client.Options {
	return client.Options{Tenant: tenant, Timeout: 3 * time.Second, MaxAttempts: 10_000, Backoff: client.Backoff{First: 5 * time.Millisecond, Max: 50 * time.Millisecond}}
}

// start runs a process for one of the planes, or for both.
func (a *apart) start(planes string) {
	a.t.Helper()
	a.processes[planes] = startProcess(a.t, append([]string{"--planes", planes, "--admin-listen", a.admins[planes]}, a.args...)...)
}

// kill ends it with SIGKILL, starts it again and waits until it serves, so that every kill is one of a process at work.
func (a *apart) kill(planes string) {
	a.t.Helper()
	p := a.processes[planes]
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	a.start(planes)
	sidecartest.Until(a.t, planes+" is back", func() bool { return a.readiness(planes, "/healthz").status == http.StatusOK })
}

// answer is the engine: an answer of some words as a stream, and, where it was told to compress, a page that its adapter sends meanwhile.
func (a *apart) answer(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Messages []struct{ Content string }
		KV       struct {
			Object   string
			Compress bool
		} `json:"kv_transfer_params"`
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil || len(body.Messages) == 0 {
		_, _ = io.WriteString(w, "{}")
		return
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	if body.KV.Compress {
		sending.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 20*time.Second)
			defer cancel()
			if _, err := a.adapter.Compress(ctx, a.pageOf(body.KV.Object)); err != nil {
				a.t.Errorf("the page of a request: %v", err)
			}
			a.adapted.Add(1)
		})
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range a.words {
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s.%d \"}}]}\n\n", body.Messages[0].Content, i)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(a.pause)
	}
	_, _ = io.WriteString(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12}}\n\ndata: [DONE]\n\n")
}

// pageOf is a small page of a request, unlike that of any other.
func (a *apart) pageOf(object string) []byte {
	p, err := page.Decode(smallPages(a.t, 1)[0], page.DefaultLimits())
	if err == nil {
		ids := make([]int32, p.Tokens)
		a.mu.Lock()
		a.sequence++
		ids[1] = int32(a.sequence)
		a.mu.Unlock()
		p.Sequence, p.TokenIDs = object, page.IntsOf(ids)
		var blob []byte
		if blob, err = p.Append(nil); err == nil {
			return blob
		}
	}
	a.t.Error(err)
	return nil
}

var errWrongAnswer = errors.New("the answer differs from the engine's")

// ask sends a request and reads its stream to the end: every word of the answer, in order, and nothing else.
func (a *apart) ask(name string) (header http.Header, err error) {
	body := fmt.Sprintf(`{"model":"m","stream":true,"messages":[{"role":"user","content":%q}]}`, name)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, a.proxy+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Request-Id", name)
	response, err := a.chat.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var got, want strings.Builder
	done := false
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		data, _ := strings.CutPrefix(lines.Text(), "data: ")
		var event struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if done = done || data == "[DONE]"; json.Unmarshal([]byte(data), &event) == nil && len(event.Choices) > 0 {
			got.WriteString(event.Choices[0].Delta.Content)
		}
	}
	for i := range a.words {
		fmt.Fprintf(&want, "%s.%d ", name, i)
	}
	switch {
	case response.StatusCode != http.StatusOK:
		return response.Header, fmt.Errorf("status %d", response.StatusCode)
	case !done || got.String() != want.String():
		return response.Header, fmt.Errorf("%w: got %q, ended: %v", errWrongAnswer, got.String(), done)
	}
	return response.Header, nil
}

// served waits until a request is answered.
func (a *apart) served() {
	a.t.Helper()
	var err error
	sidecartest.Until(a.t, "a request is answered", func() bool {
		_, err = a.ask("first")
		return err == nil
	})
}

// load is what became of requests and pages. A request is cut when it runs, or refused when nobody listens.
type load struct{ requests, cut, refused, pages, retries atomic.Int64 }

func (l *load) failed(err error) {
	if errors.Is(err, syscall.ECONNREFUSED) {
		l.refused.Add(1)
		return
	}
	l.cut.Add(1)
}

// under sends requests and pages until disturb returns. Every page must get its right cores; the first failure of a request is returned.
func (a *apart) under(disturb func()) (l *load, first error) {
	l = &load{}
	pages := smallPages(a.t, 200)
	want := cleanRun(a.t, pages)
	c := dial(a.t, a.nats, patience("acme"))
	stop := make(chan struct{})
	var working sync.WaitGroup
	var once sync.Once
	for worker := range 6 {
		working.Go(func() {
			for i := 0; !closed(stop); i++ {
				l.requests.Add(1)
				if _, err := a.ask(fmt.Sprintf("r-%d-%d", worker, i)); err != nil {
					l.failed(err)
					once.Do(func() { first = err })
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for worker := range 2 {
		working.Go(func() {
			for i := worker; !closed(stop); i = (i + 2) % len(pages) {
				reply, err := c.Compress(context.Background(), pages[i])
				if err != nil {
					a.t.Errorf("page %d is lost: %v", i, err)
					continue
				}
				if sum, err := digest(reply.Body, i); err != nil || sum != want[i] {
					a.t.Errorf("page %d is wrong: %v", i, err)
				}
				l.pages.Add(1)
				l.retries.Add(int64(reply.Attempts - 1))
			}
		})
	}
	disturb()
	close(stop)
	working.Wait()
	return l, first
}

func closed(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// killing kills a process so many times while requests run.
func (a *apart) killing(planes string, times int) func() {
	return func() {
		for range times {
			time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
			a.kill(planes)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// A kill of what compresses pages cuts every request in one process, and none where the planes run apart.
func TestRequestsOutliveThePagePlanesProcess(t *testing.T) {
	kills := planeKills(t)
	one := newApart(t)
	one.start("both")
	one.served()
	whole, why := one.under(one.killing("both", kills))
	if whole.cut.Load() == 0 {
		t.Errorf("in one process no request that ran was cut: the kills were not felt (%v)", why)
	}
	t.Logf("%d kills of one process with both planes: of %d requests %d were cut and %d found nobody; %d pages, 0 lost, 0 wrong, %d retries",
		kills, whole.requests.Load(), whole.cut.Load(), whole.refused.Load(), whole.pages.Load(), whole.retries.Load())

	two := newApart(t)
	two.start("requests") // before the page plane
	two.start("pages")
	two.served()
	halves, why := two.under(two.killing("pages", kills))
	if why != nil {
		t.Errorf("%d requests were cut and %d found nobody, want none: %v", halves.cut.Load(), halves.refused.Load(), why)
	}
	if halves.retries.Load() == 0 {
		t.Error("no page had to be sent again: the kills were not felt")
	}
	if two.adapted.Load() == 0 {
		t.Error("no request's page was compressed")
	}
	t.Logf("%d kills of the page plane's process: of %d requests 0 were cut and 0 found nobody; %d pages, and %d of requests, 0 lost, 0 wrong, %d retries",
		kills, halves.requests.Load(), halves.pages.Load(), two.adapted.Load(), halves.retries.Load())
}

// A kill of the request plane's process is not felt by pages. It is back soon, and learns of later pages.
func TestPagesOutliveTheRequestPlanesProcess(t *testing.T) {
	kills := planeKills(t)
	a := newApart(t)
	a.start("pages") // before the request plane
	a.start("requests")
	a.served()
	var back []time.Duration
	l, _ := a.under(func() {
		for i := range kills {
			time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
			start := time.Now()
			a.kill("requests")
			a.served()
			back = append(back, time.Since(start)-time.Duration(a.words)*a.pause) // without the engine's own time
			a.explained(fmt.Sprint("later-", i))
		}
	})
	if l.retries.Load() > 0 {
		t.Errorf("%d pages had to be sent again, want none", l.retries.Load())
	}
	longest := time.Duration(0)
	for _, d := range back {
		longest = max(longest, d)
	}
	if longest > 10*time.Second {
		t.Errorf("the request plane was back after %v", longest)
	}
	t.Logf("%d kills of the request plane's process: %d pages, 0 lost, 0 wrong, %d retries; a request was answered %v after the kill (median, longest %v); explain had the pages of %d later requests",
		kills, l.pages.Load(), l.retries.Load(), medianOf(back).Round(time.Millisecond), longest.Round(time.Millisecond), kills)
}

// explained sends a request whose page is compressed and waits until it is told of both. A request that came before the page plane had
// connected again is exact; then another is sent.
func (a *apart) explained(name string) {
	a.t.Helper()
	tried := 0
	sidecartest.Until(a.t, "explain has the page of "+name, func() bool {
		tried++
		if _, err := a.ask(fmt.Sprint(name, "-", tried)); err != nil {
			return false
		}
		return len(a.explain(fmt.Sprint(name, "-", tried)).Request.Pages) > 0
	})
}
