package canary_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/canary"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCompare(t *testing.T) {
	words := func(text string) canary.Answer { return canary.Answer{Tokens: strings.Fields(text)} }
	for _, c := range []struct {
		name string
		a, b canary.Answer
		want canary.Difference
	}{
		{"the same", words("a b c d"), words("a b c d"), canary.Difference{Agreement: 1}},
		{"the third differs, the fourth does not count", words("a b c d"), words("a b x d"), canary.Difference{Agreement: 0.5}},
		{"one is shorter", words("a b c d"), words("a b c"), canary.Difference{Agreement: 0.75}},
		{"nothing", words(""), words(""), canary.Difference{Agreement: 1}},
		{
			"log probabilities of the beginning that is the same", canary.Answer{Tokens: []string{"a", "b", "c"}, Logprobs: []float64{-1, -2, -3}},
			canary.Answer{Tokens: []string{"a", "b", "x"}, Logprobs: []float64{-1.5, -2.25, -9}}, canary.Difference{Agreement: 2. / 3, Logprob: 0.375},
		},
	} {
		got := canary.Compare(c.a, c.b)
		if math.Abs(got.Agreement-c.want.Agreement) > 1e-9 || math.Abs(got.Logprob-c.want.Logprob) > 1e-9 {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	if n := len(strings.Fields(canary.Prompt())); n < 600 || !strings.HasSuffix(canary.Prompt(), "Entry 17: the warehouse of") {
		t.Errorf("the prompt: got %d words", n)
	}
}

// engine answers completions; what it says with compressed KV can be changed, as can when its process began.
type engine struct {
	*httptest.Server
	mu         sync.Mutex
	started    float64
	away       bool
	compressed string // what is answered with compressed KV
	flaky      bool   // no answer is like another
	salts      []string
	asked      int
}

func startEngine(t *testing.T) *engine {
	t.Helper()
	e := &engine{started: 100, compressed: exact}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		switch {
		case e.away:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/metrics":
			fmt.Fprintf(w, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %v\n", e.started)
		case r.URL.Path == "/v1/models":
			fmt.Fprint(w, `{"data":[{"id":"served"}]}`)
		default:
			var q struct {
				Model       string
				Temperature *float64
				KV          struct{ Compress bool } `json:"kv_transfer_params"`
				Salt        string                  `json:"cache_salt"`
			}
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Model != "served" || q.Temperature == nil || *q.Temperature != 0 {
				t.Errorf("got %+v, %v", q, err)
			}
			e.asked++
			e.salts = append(e.salts, q.Salt)
			text := exact
			if q.KV.Compress {
				text = e.compressed
			}
			if e.flaky {
				text = fmt.Sprint("other ", e.asked, " ", text)
			}
			tokens := strings.Fields(text)
			_ = json.NewEncoder(w).Encode(map[string]any{"choices": []any{map[string]any{
				"text": text, "logprobs": map[string]any{"tokens": tokens, "token_logprobs": make([]float64, len(tokens))},
			}}})
		}
	}))
	t.Cleanup(e.Close)
	return e
}

const exact = "Lisbon holds 692 boxes of window glass sealed with number 9707"

func (e *engine) change(do func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	do()
}

// plane is the proxy's part.
type plane struct {
	mu     sync.Mutex
	digest string
	pages  int
	n      int
}

func (p *plane) Digest(string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.digest == "" {
		return "", errors.New("compresses nothing")
	}
	return p.digest, nil
}

func (p *plane) Begin(_ string, compress bool) (canary.Params, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return canary.Params{KV: map[string]bool{"compress": compress}, Salt: fmt.Sprint("salt", p.n)}, fmt.Sprint("object", p.n), nil
}

func (p *plane) Compressed(string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pages
}

func start(t *testing.T, e *engine, p *plane) *canary.Canary {
	t.Helper()
	u, err := url.Parse(e.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := canary.New(u, canary.Options{Plane: p, Every: time.Millisecond, Transport: &http.Transport{}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Off() == "" {
		t.Error("before it was answered: got compression allowed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v", err)
		}
	})
	return c
}

// until yields until what Off says holds the text; "" waits for nothing to be said.
func until(t *testing.T, c *canary.Canary, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; runtime.Gosched() {
		off := c.Off()
		if text == "" && off == "" || text != "" && strings.Contains(off, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %q, want %q", off, text)
		}
	}
}

func TestNothingIsCompressedUntilTheAnswersAreAlike(t *testing.T) {
	e, p := startEngine(t), &plane{digest: "one", pages: 1}
	c := start(t, e, p)
	until(t, c, "")
	e.change(func() {
		if e.asked != 4 || e.salts[0] == e.salts[1] || e.salts[1] == e.salts[2] || e.salts[2] != e.salts[3] {
			t.Errorf("got %d questions with %v, want the last two to share what is stored", e.asked, e.salts)
		}
		e.compressed, e.started = "Genoa holds 1 box", 200 // another build of the engine
	})
	until(t, c, "differs with compressed KV")
	before := 0
	e.change(func() { before = e.asked })
	e.change(func() { e.compressed = exact }) // which is not looked at before something changes
	p.mu.Lock()
	p.digest = "two"
	p.mu.Unlock()
	until(t, c, "")
	e.change(func() {
		if e.asked != before+4 {
			t.Errorf("after the policy's change: got %d questions, want one run", e.asked-before)
		}
		e.compressed, e.away = "Genoa", true
	})
	for deadline := time.Now().Add(50 * time.Millisecond); time.Now().Before(deadline); runtime.Gosched() {
		if c.Off() != "" {
			t.Fatalf("while the engine is away: got %q, want nothing changed", c.Off())
		}
	}
	e.change(func() { e.away = false })
	until(t, c, "differs with compressed KV")
}

func TestWhatCannotBeJudgedLetsNothingBeCompressed(t *testing.T) {
	e, p := startEngine(t), &plane{digest: "one"}
	c := start(t, e, p)
	until(t, c, "no page of it was compressed")
	e.change(func() { e.flaky = true })
	until(t, c, "does not repeat itself")
	p.mu.Lock()
	p.digest = ""
	p.mu.Unlock()
	until(t, c, "compresses nothing")
	e.change(func() { e.flaky = false })
	p.mu.Lock()
	p.digest, p.pages = "one", 1
	p.mu.Unlock()
	until(t, c, "")
}
