package engineproof_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semproxy/semproxy/cmd/semproxy/engineproof"
)

// engine answers as one behind semproxy does. What it says of a prompt may depend on whether it is on cores.
type engine struct {
	profile, gate string
	answer        func(prompt string, cores bool, n int64) []string
	ratio         string // header of an answer on cores
	cached        int
	refuse        func(n int64, body map[string]any) (status int)
	cut           bool // the stream ends too early
	asked         atomic.Int64
	mu            sync.Mutex
	salts         map[string]bool
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := e.asked.Add(1)
	if r.URL.Path == "/v1/models" {
		_, _ = fmt.Fprint(w, `{"data":[{"id":"m"}]}`)
		return
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	if e.refuse != nil {
		if status := e.refuse(n, body); status != 0 {
			http.Error(w, `{"error":{"message":"no"}}`, status)
			return
		}
	}
	cores := r.Header.Get("Semproxy-Compress") == "on" && e.gate != "baseline"
	if salt, _ := body["cache_salt"].(string); e.again(salt) {
		http.Error(w, "a salt is used twice", http.StatusTeapot)
		return
	}
	decision := "exact"
	if cores {
		decision = "compress"
		if e.ratio != "" {
			w.Header().Set("Semproxy-Ratio", e.ratio)
		}
	}
	if e.profile != "" {
		w.Header().Set("Semproxy-Decision", fmt.Sprintf(`%s; profile="%s"; rule="r"; gate="%s"`, decision, e.profile, e.gate))
	}
	prompt, _ := body["prompt"].(string)
	chat := prompt == ""
	for i, token := range e.answer(prompt, cores, n) {
		logprob := -0.25 * float64(i+1)
		if cores {
			logprob -= 0.5
		}
		choice := map[string]any{"text": token, "logprobs": map[string]any{"tokens": []string{token}, "token_logprobs": []float64{logprob}}}
		if chat {
			choice = map[string]any{"delta": map[string]any{"content": token}, "logprobs": map[string]any{"content": []any{map[string]any{"token": token, "logprob": logprob}}}}
		}
		data, _ := json.Marshal(map[string]any{"choices": []any{choice}})
		_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
	}
	if e.cut {
		return
	}
	cached := 0
	if cores {
		cached = e.cached
	}
	_, _ = fmt.Fprintf(w, `data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":%d}}}`+"\n\ndata: [DONE]\n\n", cached)
}

// again reports whether a salt was used before, where that is watched.
func (e *engine) again(salt string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.salts == nil {
		return false
	}
	before := e.salts[salt]
	e.salts[salt] = true
	return before
}

func run(t *testing.T, e *engine, lines string, change func(*engineproof.Config)) *engineproof.Report {
	t.Helper()
	server := httptest.NewServer(e)
	t.Cleanup(server.Close)
	at, _ := url.Parse(server.URL)
	prompts, err := engineproof.ReadPrompts(strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	cfg := engineproof.Config{
		Engine: at, Tenants: []engineproof.Tenant{{Name: "acme", Key: "k"}}, Prompts: prompts, MaxTokens: 8, Salt: true, Attempts: 3,
		Pause: time.Millisecond, Timeout: 10 * time.Second, Transport: server.Client().Transport, Limits: engineproof.Limits{Loss: 0.02, Changed: 0.1, Least: 20},
	}
	if change != nil {
		change(&cfg)
	}
	report, err := engineproof.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func many(n int, line string) string { return strings.Repeat(line+"\n", n) }

const task = `{"prompt":"p","answer":["Right  ANSWER","other"]}`

func TestVerdicts(t *testing.T) {
	right, wrong := []string{"the right", " answer"}, []string{"the right", " one"}
	same := func(string, bool, int64) []string { return right }
	worse := func(_ string, cores bool, _ int64) []string {
		if cores {
			return wrong
		}
		return right
	}
	for _, c := range []struct {
		name, lines string
		engine      *engine
		want        engineproof.Verdict
		why         string
	}{
		{"the same answers, by the task", many(60, task), &engine{ratio: "0.25", answer: same}, engineproof.Holds, "limit 2.0 %"},
		{"the same answers, too few", many(25, task), &engine{ratio: "0.25", answer: same}, engineproof.NoAnswer, "too few prompts to tell"},
		{"fewer than a verdict needs", many(5, task), &engine{ratio: "0.25", answer: same}, engineproof.NoAnswer, "needs 20"},
		{"wrong answers", many(30, task), &engine{ratio: "0.25", answer: worse}, engineproof.Fails, "the task score lost: 100.0 %"},
		{"other answers, no task", many(30, `{"prompt":"p"}`), &engine{ratio: "0.25", answer: worse}, engineproof.Fails, "answers that changed: 100.0 %"},
		{"the same answers, no task", many(60, `{"messages":[{"role":"user","content":"p"}]}`), &engine{cached: 30, answer: same}, engineproof.Holds, "answers that changed: 0.0 %"},
		{"nothing shows cores", many(30, task), &engine{answer: same}, engineproof.NoAnswer, "nothing shows"},
		{"the gate leaves all exact", many(30, task), &engine{gate: "baseline", ratio: "0.25", answer: same}, engineproof.NoAnswer, "left every prompt exact"},
		{"an engine that does not repeat itself", many(30, `{"prompt":"p"}`), &engine{ratio: "0.25", answer: func(_ string, _ bool, n int64) []string {
			return []string{fmt.Sprint(n)}
		}}, engineproof.NoAnswer, "does not repeat itself"},
		{"no semproxy in front", many(2, task), &engine{profile: "-", answer: same}, engineproof.NoAnswer, "no Semproxy-Decision header"},
		{"a stream that is cut", many(2, task), &engine{cut: true, answer: same}, engineproof.NoAnswer, "ended too early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := c.engine
			switch e.profile {
			case "":
				e.profile = "quarter"
			case "-":
				e.profile = ""
			}
			if !e.cut { // what is tried again keeps its salt
				e.salts = map[string]bool{}
			}
			report := run(t, e, c.lines, nil)
			if len(report.Results) != 1 || report.Results[0].Verdict != c.want || report.Verdict() != c.want || !strings.Contains(report.Results[0].Why, c.why) {
				t.Fatalf("got %+v, want %s because of %q", report.Results, c.want, c.why)
			}
			var text, page bytes.Buffer
			if err := report.Markdown(&text); err != nil {
				t.Error(err)
			}
			if err := report.HTML(&page); err != nil {
				t.Error(err)
			}
			for _, out := range []string{text.String(), page.String()} {
				if !strings.Contains(out, string(c.want)) || !strings.Contains(out, "acme") {
					t.Errorf("a report without its verdict or its tenant:\n%s", out)
				}
			}
		})
	}
}

func TestWhatIsMeasured(t *testing.T) {
	e := &engine{profile: "quarter", ratio: "0.25", cached: 32, salts: map[string]bool{}, answer: func(_ string, cores bool, _ int64) []string {
		if cores {
			return []string{"a", "b", "x"}
		}
		return []string{"a", "b", "c"}
	}}
	report := run(t, e, many(4, `{"prompt":"p","answer":"abc"}`), nil)
	r := report.Results[0]
	if r.OnCores != 4 || r.Changed != 4 || r.ChangedExact != 0 || r.FirstToken != 2 || r.ScoreExact != 1 || r.ScoreCores != 0 || r.Slots != 32 ||
		r.PromptTokens != 100 || r.Ratio != 0.25 {
		t.Errorf("got %+v", r)
	}
	if r.Logprob == nil || *r.Logprob != 0.5 || *r.LogprobExact != 0 {
		t.Errorf("logprob differences: got %v and %v, want 0.5 and 0", r.Logprob, r.LogprobExact)
	}
	if r.TTFT[0] <= 0 || r.TTFT[1] <= 0 {
		t.Errorf("times to first token: got %v", r.TTFT)
	}
}

// Refusals that may pass are tried again, a bounded number of times; those of log probabilities are gone without.
func TestRetriesAreBounded(t *testing.T) {
	answer := func(string, bool, int64) []string { return []string{"a"} }
	e := &engine{profile: "q", ratio: "0.5", answer: answer, refuse: func(n int64, _ map[string]any) int {
		if n%2 == 0 {
			return http.StatusServiceUnavailable
		}
		return 0
	}}
	if r := run(t, e, `{"prompt":"p"}`, nil).Results[0]; r.Failed != 0 || r.OnCores != 1 {
		t.Errorf("every other request fails: got %+v, want it answered", r)
	}
	e = &engine{profile: "q", answer: answer, refuse: func(int64, map[string]any) int { return http.StatusServiceUnavailable }}
	if r := run(t, e, `{"prompt":"p"}`, nil).Results[0]; r.Failed != 1 || e.asked.Load() != 1+3 || !strings.Contains(r.Why, "HTTP 503") {
		t.Errorf("every request fails: got %+v after %d requests, want 3 attempts and the list of models", r, e.asked.Load())
	}
	e = &engine{profile: "q", ratio: "0.5", answer: answer, refuse: func(_ int64, body map[string]any) int {
		if body["logprobs"] != nil {
			return http.StatusBadRequest
		}
		return 0
	}}
	if r := run(t, e, `{"prompt":"p"}`, nil).Results[0]; r.OnCores != 1 {
		t.Errorf("an engine without log probabilities: got %+v, want it answered", r)
	}
	e = &engine{profile: "q", answer: answer, refuse: func(int64, map[string]any) int { return http.StatusUnauthorized }}
	if r := run(t, e, `{"prompt":"p"}`, nil).Results[0]; r.Failed != 1 || e.asked.Load() != 2 {
		t.Errorf("a wrong key: got %+v after %d requests, want one attempt", r, e.asked.Load())
	}
}

func TestPromptsAreChecked(t *testing.T) {
	for line, want := range map[string]string{
		``:                                  "no prompt",
		`{"prompt":"p"`:                     "line 1",
		`{}`:                                "either prompt or messages",
		`{"prompt":"p","messages":[1]}`:     "either prompt or messages",
		`{"messages":[]}`:                   "not empty",
		`{"messages":{"a":1}}`:              "a list",
		`{"prompt":"p","question":"q"}`:     "unknown field",
		`{"prompt":"p","answer":" "}`:       "answer must not be empty",
		`{"prompt":"p","max_tokens":-1}`:    "must not be negative",
		"{\"prompt\":\"p\"}\n{\"prompt\":}": "line 2",
		`{"prompt":"p"} {"prompt":"q"}`:     "more than one",
	} {
		if _, err := engineproof.ReadPrompts(strings.NewReader(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
}
