package forward_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/forward"
)

// keeper is an engine that keeps answers. One that takes ids is vLLM, which names an answer as the request's request_id says.
func keeper(t *testing.T, takesIDs bool) string {
	t.Helper()
	var mu sync.Mutex
	kept := map[string]string{}
	return newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodPost || strings.HasSuffix(r.URL.Path, "/cancel") {
			text, ok := kept[strings.Split(r.URL.Path, "/")[3]]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(w, text)
			return
		}
		var body struct {
			ID     string `json:"request_id"`
			Stream bool   `json:"stream"`
			Input  string `json:"input"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		if !takesIDs || body.ID == "" {
			body.ID = fmt.Sprintf("resp_own%d", len(kept))
		}
		kept[body.ID] = `{"id":"` + body.ID + `","object":"response","model":"m","output":"` + body.Input + `"}`
		if body.Stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\""+body.ID+"\",\"model\":\"m\"}}\n\n")
			return
		}
		_, _ = io.WriteString(w, kept[body.ID])
	})
}

// An answer that the engine keeps is its tenant's: another can neither read, cancel nor delete it, nor go on from it, though it knows its id.
func TestAnAnswerThatIsKeptIsItsTenants(t *testing.T) {
	for _, takesIDs := range []bool{true, false} {
		for _, stream := range []string{"", `,"stream":true`} {
			target := keeper(t, takesIDs)
			s, other := startProxy(t, target, nil), startProxy(t, target, nil)
			got := s.call(t, "POST", "/v1/responses", acmeKey, `{"model":"m","input":"the secret","request_id":"resp_mine"`+stream+`}`)
			_, rest, _ := strings.Cut(got.body, `"id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			if got.status != 200 || id == "" || id == "resp_mine" {
				t.Fatalf("got %d %s, want an id that the client did not choose", got.status, got.body)
			}
			for _, c := range []struct{ method, path string }{{"GET", ""}, {"GET", "?stream=true"}, {"POST", "/cancel"}, {"DELETE", ""}} {
				path := "/v1/responses/" + id
				if got := s.call(t, c.method, path+c.path, freeKey, ""); got.status != 404 || strings.Contains(got.body, "secret") {
					t.Errorf("another tenant: %s %s: got %d %s, want 404", c.method, c.path, got.status, got.body)
				}
				if got := s.call(t, c.method, path+c.path, acmeKey, ""); got.status != 200 || !strings.Contains(got.body, "secret") {
					t.Errorf("its tenant: %s %s: got %d %s, want it", c.method, c.path, got.status, got.body)
				}
			}
			if got := other.call(t, "GET", "/v1/responses/"+id, acmeKey, ""); (got.status == 200) != takesIDs {
				t.Errorf("by another replica, ids %v: got %d", takesIDs, got.status)
			}
			next := func(key, member string) int {
				return s.call(t, "POST", "/v1/responses", key, `{"model":"m","input":"go on",`+member+`}`).status
			}
			if got := next(freeKey, `"previous_response_id":"`+id+`"`); got != 404 {
				t.Errorf("another tenant goes on: got %d, want 404", got)
			}
			if got := next(freeKey, `"previous_respons\u0065_id":"`+id+`"`); got != 404 {
				t.Errorf("another tenant goes on, escaped: got %d, want 404", got)
			}
			if got := next(acmeKey, `"previous_response_id":"`+id+`"`); got != 200 {
				t.Errorf("its tenant goes on: got %d, want 200", got)
			}
			if got := next(acmeKey, `"previous_response_id":null`); got != 200 {
				t.Errorf("null: got %d, want 200", got)
			}
			if got := next(acmeKey, `"previous_response_id":{"id":"`+id+`"}`); got != 400 {
				t.Errorf("no text: got %d, want 400", got)
			}
			if got := next(freeKey, `"conversation":"conv_1"`); got != 404 {
				t.Errorf("a conversation: got %d, want 404", got)
			}
		}
	}
}

// What is made in the background is counted beforehand, since the reply says nothing of what it will use.
func TestAnswersInTheBackgroundAreCounted(t *testing.T) {
	s := startProxy(t, keeper(t, true), nil)
	ask := func(rest string) answer {
		return s.call(t, "POST", "/v1/responses", poorKey, `{"model":"m","input":"x","background":true`+rest+`}`)
	}
	if got := ask(""); got.status != 400 || !strings.Contains(got.body, "request.background") {
		t.Errorf("without a length: got %d %s, want 400", got.status, got.body)
	}
	if got := ask(`,"max_output_tokens":200`); got.status != 200 {
		t.Errorf("got %d %s, want 200", got.status, got.body)
	}
	if got := ask(`,"max_output_tokens":1`); got.status != 429 {
		t.Errorf("after it: got %d %s, want 429: 60 tokens a minute are used up", got.status, got.body)
	}
}

// Headers by which routers direct engines are nobody else's, and nobody is served before others because a client says so.
func TestNobodyChoosesWhereAndBeforeWhomItIsServed(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hi", 1, ""), "x-prefiller-host-port: evil:80", "X-data-parallel-rank: 3", "X-Mine: kept")
	if h := e.last(t).header; got.status != 200 || h.Get("X-Prefiller-Host-Port") != "" || h.Get("X-Data-Parallel-Rank") != "" || h.Get("X-Mine") != "kept" {
		t.Errorf("got %d, %v at the engine", got.status, h)
	}
	for priority, want := range map[string]int{"-1": 400, "-1e3": 400, "0": 200, "5": 200, "null": 200, `"-1"`: 400} {
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hi", 1, `,"priority":`+priority)); got.status != want {
			t.Errorf("priority %s: got %d, want %d", priority, got.status, want)
		}
	}
}

// Bodies that some readers take for JSON and others do not, or otherwise than they are read here, reach no engine.
func TestABodyIsReadInOneWayOnly(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	wide := func(text string, big bool) string {
		var b strings.Builder
		for _, c := range []byte(text) {
			if big {
				b.Write([]byte{0, c})
			} else {
				b.Write([]byte{c, 0})
			}
		}
		return b.String()
	}
	body := chat("hi", 1, `,"kv_transfer_params":{"tenant":"evil"}`)
	for name, text := range map[string]string{
		"a byte order mark": "\xef\xbb\xbf" + body, "UTF-16LE": wide(body, false), "UTF-16BE": wide(body, true), "UTF-16 with a mark": "\xff\xfe" + wide(body, false),
		"two values": body + "\n" + body, "a list": "[" + body + "]", "a text": `"` + body + `"`, "a trailing comma": strings.TrimSuffix(body, "}") + ",}",
		"a comment": "/**/" + body, "NaN": chat("hi", 1, `,"x":NaN`), "single quotes": strings.ReplaceAll(body, `"`, "'"), "nothing": " ",
		"a vertical tab": "\v" + body, "no quotes": chat("hi", 1, `,cache_salt:"evil"`),
	} {
		before := len(e.requests())
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, text); got.status != 400 || len(e.requests()) != before {
			t.Errorf("%s: got %d %s, want 400 and nothing at the engine", name, got.status, got.body)
		}
	}
	for _, kind := range []string{"application/json, text/plain", "text/json", "application/x-ndjson", "application/jsonl", "multipart/form-data; boundary=x", "text/plain;application/json", ""} {
		if got := s.call(t, "POST", "/v1/chat/completions", acmeKey, body, "Content-Type: "+kind); got.status != 415 {
			t.Errorf("%q: got %d, want 415", kind, got.status)
		}
	}
}

// The name of a form's part is one that every reader finds, or the form is refused.
func TestAPartOfAFormHasOneName(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	for disposition, passes := range map[string]bool{
		`form-data; name="model"`: true, `form-data; name=model`: true, `form-data; name="file"; filename="a b.wav"`: true, `form-data; name="file"; filename*=UTF-8''a.wav`: true,
		`FORM-DATA; NAME="model"`: true, `form-data; name="timestamp_granularities[]"`: true,
		`form-data; name="x"; name="cache_salt"`: false, `form-data; name*=UTF-8''cache_salt`: false, `form-data; name="x"; name*=UTF-8''cache_salt`: false,
		`form-data; name*0="cache_"; name*1="salt"`: false, `form-data; name="cache\"_salt"`: false, `form-data; filename="a"`: false, `attachment; name="cache_salt"`: false,
		`form-data; name="a\\b"`: false, `form-data`: false,
	} {
		before := len(e.requests())
		form := "--b\r\nContent-Disposition: " + disposition + "\r\n\r\nevil\r\n--b--\r\n"
		got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, form, "Content-Type: multipart/form-data; boundary=b")
		reached := slices.ContainsFunc(e.requests()[before:], func(r seen) bool { return strings.Contains(r.body, "evil") }) // probes come too
		if (got.status == 200) != passes || reached != passes {
			t.Errorf("%s: got %d %s, reached the engine: %v, want it to pass: %v", disposition, got.status, got.body, reached, passes)
		}
	}
	twice := "--b\r\nContent-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"cache_salt\"\r\n\r\nevil\r\n--b--\r\n"
	if got := s.call(t, "POST", "/v1/audio/transcriptions", acmeKey, twice, "Content-Type: multipart/form-data; boundary=b"); got.status != 400 {
		t.Errorf("two names: got %d %s, want 400", got.status, got.body)
	}
}

// Whatever an answer says to be, what is in it is counted and what is the engine's own does not pass.
func TestAnAnswerIsLookedAtWhateverItSaysToBe(t *testing.T) {
	const usage = `"usage":{"prompt_tokens":31,"completion_tokens":17},"kv_transfer_params":{"remote_host":"secret"}`
	object := `{"choices":[{"index":0}],` + usage + `}`
	events := "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: " + object + "\n\ndata: [DONE]\n\n"
	texts := map[string]string{
		"an object": object, "with space before": strings.Repeat(" \n", 100) + object, "with much space": strings.Repeat(" ", 5000) + object,
		"with a byte order mark": "\xef\xbb\xbf" + object, "a list": "[" + object + "]", "events": events, "events with a mark": "\xef\xbb\xbf" + events, "a comment first": ": hello\n\n" + events, "lines": object + "\n",
	}
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON", "text/plain", "application/octet-stream", "application/x-ndjson", "text/event-stream", "text/event-stream;charset=utf-8", "", "nonsense"} {
		for name, text := range texts {
			if (strings.Contains(name, "events") || strings.Contains(name, "comment")) == strings.Contains(strings.ToLower(kind), "json") || strings.HasPrefix(kind, "text/event-stream") && !strings.Contains(name, "events") {
				continue // no engine's
			}
			for _, pieces := range []bool{false, true} {
				target := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Type"] = []string{kind}
					if kind == "" {
						w.Header()["Content-Type"] = nil
					}
					for i := 0; i < len(text); i++ {
						if !pieces {
							_, _ = io.WriteString(w, text)
							return
						}
						_, _ = io.WriteString(w, text[i:i+1])
						if i < 8 { // each arrives by itself
							w.(http.Flusher).Flush()
							time.Sleep(100 * time.Microsecond)
						}
					}
				})
				s := startProxy(t, target, func(c *forward.Config, _ *forward.ServerConfig) { c.HideDecision = true })
				got := s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hi", 1, ""))
				if r := s.done(t); got.status != 200 || strings.Contains(got.body, "secret") || r.PromptTokens != 31 || r.OutputTokens != 17 {
					t.Errorf("%q, %s (in pieces: %v): got %d %.300s, %d and %d tokens, want 31 and 17 and nothing of the engine's", kind, name, pieces, got.status, got.body, r.PromptTokens, r.OutputTokens)
				}
			}
		}
	}
}

// Usage in the places in which engines and hosts put it besides their own.
func TestUsageIsFoundInEveryPlace(t *testing.T) {
	for name, event := range map[string]string{
		"the root": `{"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":17}}`,
		"a choice": `{"choices":[{"index":0,"finish_reason":"stop","usage":{"prompt_tokens":31,"completion_tokens":17,"total_tokens":48}}]}`,
		"x_groq":   `{"choices":[{"index":0}],"x_groq":{"id":"r","usage":{"prompt_tokens":31,"completion_tokens":17}}}`,
		"response": `{"type":"response.completed","response":{"usage":{"input_tokens":31,"output_tokens":17}}}`,
		"message":  `{"type":"message_start","message":{"usage":{"input_tokens":31,"output_tokens":17}}}`,
	} {
		for _, stream := range []bool{false, true} {
			s := startProxy(t, newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if stream {
					w.Header().Set("Content-Type", "text/event-stream")
					event = "data: " + strings.TrimPrefix(strings.TrimSpace(event), "data: ") + "\n\n"
				}
				_, _ = io.WriteString(w, event)
			}), nil)
			s.call(t, "POST", "/v1/chat/completions", acmeKey, chat("hi", 1, ""))
			if r := s.done(t); r.PromptTokens != 31 || r.OutputTokens != 17 {
				t.Errorf("%s, stream %v: got %d and %d, want 31 and 17", name, stream, r.PromptTokens, r.OutputTokens)
			}
		}
	}
}

// vLLM answers with the bytes of the numbers where it is asked to, and says what it counted in a header.
func TestUsageOfAnswersInBytesIsFound(t *testing.T) {
	for _, body := range []string{"\x00\x01\x02", `{"a`, "data:\x00", ""} {
		s := startProxy(t, newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Metadata", `{"id":"e","model":"m","data":[{"index":0}],"usage":{"prompt_tokens":4000,"total_tokens":4000}}`)
			_, _ = io.WriteString(w, body)
		}), nil)
		got := s.call(t, "POST", "/v1/embeddings", acmeKey, `{"model":"m","input":"x","encoding_format":"bytes"}`)
		if r := s.done(t); r.PromptTokens != 4000 || !r.UsageKnown || got.body != body {
			t.Errorf("%q: got %d tokens and %q, want 4000 and the bytes", body, r.PromptTokens, got.body)
		}
	}
}
