package spans_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/spans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokenizer is an engine's /tokenize: a chat template that is rendered, and a token for every byte of what came out.
type tokenizer struct {
	*httptest.Server
	render atomic.Pointer[func(q question) string]
	asked  atomic.Int64
}

type question struct {
	Model    string                           `json:"model"`
	Messages []struct{ Role, Content string } `json:"messages"`
	Tools    []any                            `json:"tools"`
	Prompt   *bool                            `json:"add_generation_prompt"`
}

// chatML is a template that renders each message by itself.
func chatML(q question) string {
	text := "<s>"
	if len(q.Tools) > 0 {
		text += fmt.Sprintf("[%d tools]", len(q.Tools))
	}
	for _, m := range q.Messages {
		text += "<|" + m.Role + "|>" + m.Content + "\n"
	}
	if q.Prompt == nil || *q.Prompt {
		text += "<|assistant|>"
	}
	return text
}

// systemInLast puts the system prompt into the last message of the user, as some templates do.
func systemInLast(q question) string {
	text, system := "<s>", ""
	for i, m := range q.Messages {
		switch {
		case m.Role == "system":
			system = m.Content
		case i == len(q.Messages)-1:
			text += "[INST]" + system + m.Content + "[/INST]"
		default:
			text += "[INST]" + m.Content + "[/INST]"
		}
	}
	return text
}

func start(t *testing.T, o spans.Options) (*tokenizer, *spans.Finder) {
	t.Helper()
	e := &tokenizer{}
	e.use(chatML)
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		if r.URL.Path == "/base/detokenize" {
			var q struct{ Tokens []uint16 }
			if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
				t.Error(err)
			}
			var text []byte
			for _, b := range q.Tokens {
				text = append(text, byte(b))
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"prompt": string(text)})
			return
		}
		var q question
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/base/tokenize" || r.Header.Get("Authorization") != "Bearer k" {
			t.Errorf("%s: got %+v, %v", r.URL.Path, r.Header, err)
		}
		text := (*e.render.Load())(q)
		if text == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		tokens := make([]int, len(text))
		for i := range tokens {
			tokens[i] = int(text[i])
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"count": len(tokens), "tokens": tokens, "max_model_len": 4096})
	}))
	t.Cleanup(e.Close)
	u, err := url.Parse(e.URL + "/base")
	if err != nil {
		t.Fatal(err)
	}
	o.Key, o.Transport = func() string { return "k" }, &http.Transport{}
	f := spans.New(u, o)
	t.Cleanup(f.Close)
	return e, f
}

func (e *tokenizer) use(render func(q question) string) { e.render.Store(&render) }

func chat(t *testing.T, body string) *dialect.Chat {
	t.Helper()
	r, err := dialect.Inspect(dialect.Route{Pattern: "/v1/chat/completions", Kind: dialect.Generate}, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Chat()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const conversation = `{"model":"m","tools":[{"a":1}],"messages":[{"role":"system","content":"be good"},{"role":"user","content":"hi"},` +
	`{"role":"assistant","content":""},{"role":"tool","content":"42"},{"role":"tool","content":"43"}]}`

func TestMessagesAreFoundInTheWholePrompt(t *testing.T) {
	e, f := start(t, spans.Options{})
	c := chat(t, conversation)
	got, err := f.Find(t.Context(), "acme", c, []string{"system", "tool"})
	if err != nil {
		t.Fatal(err)
	}
	var q question
	_ = json.Unmarshal([]byte(conversation), &q)
	text := chatML(q)
	want := []string{"<s>[1 tools]<|system|>be good\n", "<|tool|>42\n<|tool|>43\n"}
	if len(got.Spans) != 2 || text[got.Spans[0][0]:got.Spans[0][1]] != want[0] || text[got.Spans[1][0]:got.Spans[1][1]] != want[1] || got.Tokens != len(text) {
		t.Errorf("got %+v of %q, want %q", got, text, want)
	}
	// The next turn of the conversation: its beginning is known, only the whole prompt and the new end are asked for.
	before := e.asked.Load()
	longer := chat(t, strings.Replace(conversation, `"43"}`, `"43"},{"role":"user","content":"and?"}`, 1))
	again, err := f.Find(t.Context(), "acme", longer, []string{"system", "tool"})
	if err != nil || !reflect.DeepEqual(again.Spans, got.Spans) || e.asked.Load() != before+1 {
		t.Errorf("got %+v, %v, %d questions, want the same spans by one question", again, err, e.asked.Load()-before)
	}
	// Nobody learns from the time of a search what another tenant has sent.
	before = e.asked.Load()
	if _, err := f.Find(t.Context(), "globex", longer, []string{"system", "tool"}); err != nil || e.asked.Load() != before+6 {
		t.Errorf("another tenant: got %v, %d questions, want all of them", err, e.asked.Load()-before)
	}
	before = e.asked.Load()
	none, err := f.Find(t.Context(), "acme", c, []string{"developer"})
	if err != nil || len(none.Spans) != 0 || e.asked.Load() != before || spans.OutcomeOf(none, err) != spans.OutcomeNone {
		t.Errorf("no message of the role: got %+v, %v, want nothing asked", none, err)
	}
}

func TestNothingIsClaimedThatIsNotKnown(t *testing.T) {
	fewRuns := `{"model":"m","messages":[{"role":"user","content":"a"}` + strings.Repeat(`,{"role":"system","content":"x"},{"role":"user","content":"y"}`, 33) + `]}`
	for _, c := range []struct {
		name    string
		render  func(q question) string
		body    string
		outcome spans.Outcome
	}{
		{"a template that moves the system prompt", systemInLast, `{"messages":[{"role":"system","content":"be good"},{"role":"user","content":"a"},{"role":"user","content":"b"}]}`, spans.OutcomeUnstable},
		{"a template that refuses a chat without a user", func(q question) string {
			if len(q.Messages) == 1 {
				return ""
			}
			return chatML(q)
		}, conversation, spans.OutcomeUnavailable},
		{"very many places", chatML, fewRuns, spans.OutcomeTooMany},
		{"a template that changes a text", func(q question) string { return strings.ReplaceAll(chatML(q), "good", "GOOD") }, conversation, spans.OutcomeUnstable},
	} {
		e, f := start(t, spans.Options{})
		e.use(c.render)
		got, err := f.Find(t.Context(), "acme", chat(t, c.body), []string{"system"})
		if spans.OutcomeOf(got, err) != c.outcome || len(got.Spans) != 0 || err.Error() == "" {
			t.Errorf("%s: got %+v, %v, want %s", c.name, got, err, c.outcome)
		}
	}
}

func TestAnotherModelBehindTheEngineIsSeen(t *testing.T) {
	e, f := start(t, spans.Options{})
	c := chat(t, conversation)
	if _, err := f.Find(t.Context(), "acme", c, []string{"system"}); err != nil {
		t.Fatal(err)
	}
	e.use(func(q question) string { return "<bos>" + chatML(q) })
	got, err := f.Find(t.Context(), "acme", c, []string{"system"})
	if spans.OutcomeOf(got, err) != spans.OutcomeUnstable {
		t.Errorf("what was remembered no longer holds: got %+v, %v, want unstable", got, err)
	}
	if got, err := f.Find(t.Context(), "acme", c, []string{"system"}); err != nil || len(got.Spans) != 1 {
		t.Errorf("then: got %+v, %v, want it asked anew", got, err)
	}
}

func TestAModelThatCountsOtherwiseIsNotTrustedForAWhile(t *testing.T) {
	now := time.Unix(1, 0)
	_, f := start(t, spans.Options{Now: func() time.Time { return now }})
	c := chat(t, conversation)
	f.Mismatch("m")
	got, err := f.Find(t.Context(), "acme", c, []string{"system"})
	if spans.OutcomeOf(got, err) != spans.OutcomeDistrusted {
		t.Errorf("got %+v, %v, want distrusted", got, err)
	}
	now = now.Add(11 * time.Minute)
	if _, err := f.Find(t.Context(), "acme", c, []string{"system"}); err != nil {
		t.Errorf("later: got %v, want it tried again", err)
	}
}

func TestASlowOrBrokenEngineIsNotWaitedFor(t *testing.T) {
	release := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"slow":      func(http.ResponseWriter, *http.Request) { <-release },
		"no JSON":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"no tokens": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"tokens":[]}`) },
		"not there": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"tokens":[`+strings.Repeat("1,", 8<<20)+`1]}`)
		},
	} {
		server := httptest.NewServer(answer)
		u, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		f := spans.New(u, spans.Options{Timeout: 200 * time.Millisecond, Concurrent: 1, Transport: &http.Transport{}})
		var group sync.WaitGroup
		for range 2 { // one of them waits for its turn
			group.Go(func() {
				got, err := f.Find(t.Context(), "acme", chat(t, conversation), []string{"system"})
				var known *spans.Error
				if !errors.As(err, &known) || known.Outcome != spans.OutcomeUnavailable {
					t.Errorf("%s: got %+v, %v, want unavailable", name, got, err)
				}
			})
		}
		group.Wait()
		if name == "slow" {
			close(release)
		}
		f.Close()
		server.Close()
	}
}
