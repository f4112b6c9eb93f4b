package dialect_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/proxy/dialect"
)

var chat = dialect.Route{Pattern: "/v1/chat/completions", Kind: dialect.Generate, Operation: "chat", UsageOption: true}

func TestOnlyListedPathsInTheirPlainestFormAreFound(t *testing.T) {
	for _, c := range []struct {
		method, target string
		found, allowed bool
		pattern        string
	}{
		{"POST", "/v1/chat/completions", true, true, "/v1/chat/completions"},
		{"GET", "/v1/chat/completions", true, false, "/v1/chat/completions"},
		{"GET", "/v1/models", true, true, "/v1/models"},
		{"POST", "/v1/score", true, true, "/v1/score"},
		{"PATCH", "/v1/score", true, false, "/v1/score"},
		{"GET", "/v1/responses/r1", true, true, "/v1/responses/*"},
		{"GET", "/v1/responses/r1/x", true, true, dialect.Others},
		{"HEAD", "/health", true, true, "/health"},
		{"POST", "/generate_stream", true, true, "/generate_stream"},
		{"GET", "/info", true, true, "/info"},
		{"POST", "/v1/load_lora_adapter", true, true, dialect.Others},
		{"GET", "/", true, false, "/"},
		{"POST", "/", true, true, "/"},
		{"GET", "/v1", true, true, dialect.Others},
		{"GET", "/admin", true, true, dialect.Others},
		{"GET", "//v1/models", false, false, ""},
		{"GET", "/v1//models", false, false, ""},
		{"GET", "/v1/../admin", false, false, ""},
		{"GET", "/v1/%2e%2e/admin", false, false, ""},
		{"GET", "/v1/..%2fadmin", false, false, ""},
		{"GET", "/v1/./models", false, false, ""},
		{"GET", "/v1/models/", false, false, ""},
		{"GET", "/V1/models", true, true, dialect.Others},
		{"GET", `/v1/..\admin`, false, false, ""},
		{"GET", "/v1/models;x=1", false, false, ""},
		{"GET", "/v1/models%00", false, false, ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, "http://host"+c.target, http.NoBody)
		route, found, allowed := dialect.Lookup(r)
		if found != c.found || allowed != c.allowed || route.Pattern != c.pattern {
			t.Errorf("%s %s: got %q, %v, %v, want %q, %v, %v", c.method, c.target, route.Pattern, found, allowed, c.pattern, c.found, c.allowed)
		}
	}
}

func TestErrorsHaveTheShapeOfTheDialect(t *testing.T) {
	e := &dialect.Error{Status: 401, Code: "identity.missing", Message: "no credential"}
	for d, want := range map[dialect.Dialect]string{
		dialect.OpenAI:    `{"error":{"message":"no credential","type":"authentication_error","param":null,"code":"identity.missing"}}`,
		dialect.TGI:       `{"error":"no credential","error_type":"identity.missing"}`,
		dialect.Anthropic: `{"type":"error","error":{"type":"authentication_error","message":"no credential","code":"identity.missing"}}`,
	} {
		if got := string(e.Body(d)); got != want {
			t.Errorf("dialect %d: got %s, want %s", d, got, want)
		}
	}
}

func TestRewriteKeepsEveryOtherByte(t *testing.T) {
	for _, c := range []struct {
		name, body string
		params     dialect.Params
		want       string
		added      bool
	}{
		{
			"numbers and unknown members", `{ "model" : "m", "x": 1.00000000000000000001, "seed":12345678901234567890, "y":{"a":[1, 2]} }`,
			dialect.Params{}, `{ "model" : "m", "x": 1.00000000000000000001, "seed":12345678901234567890, "y":{"a":[1, 2]} }`, false,
		},
		{
			"the client's parameters go, also escaped and twice",
			`{"model":"m","kv_transfer_params":{"tenant":"globex"},"kv_\u0074ransfer_params":1,"cache_salt":"x"}`,
			dialect.Params{KV: map[string]string{"tenant": "acme"}, CacheSalt: "s"},
			`{"model":"m","kv_transfer_params":{"tenant":"acme"},"cache_salt":"s"}`, false,
		},
		{
			"nor in vLLM's other arguments", `{"vllm_xargs":{"a":1,"kv_transfer_params":{"tenant":"globex"}}}`,
			dialect.Params{}, `{"vllm_xargs":{"a":1}}`, false,
		},
		{
			"usage is asked for", `{"model":"m","stream":true}`, dialect.Params{Usage: true},
			`{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, true,
		},
		{
			"the client's stream options stay", `{"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":false}}`,
			dialect.Params{Usage: true}, `{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true}}`, true,
		},
		{
			"usage that the client asked for is left", `{"stream":true,"stream_options":{"include_usage":true}}`,
			dialect.Params{Usage: true}, `{"stream":true,"stream_options":{"include_usage":true}}`, false,
		},
		{"no stream, no options", `{"stream":false}`, dialect.Params{Usage: true}, `{"stream":false}`, false},
		{"an empty object", ` { } `, dialect.Params{CacheSalt: "s"}, ` { "cache_salt":"s"}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := dialect.Inspect(chat, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			got, added, err := r.Rewrite(c.params)
			if err != nil || string(got.Bytes()) != c.want || added != c.added {
				t.Errorf("got %s, %v, %v, want %s, %v", got.Bytes(), added, err, c.want, c.added)
			}
		})
	}
}

func TestInspectReadsWhatIsAskedFor(t *testing.T) {
	tgi := dialect.Route{Pattern: "/generate_stream", Dialect: dialect.TGI, Kind: dialect.Generate, AlwaysStream: true}
	for _, c := range []struct {
		name, body string
		route      dialect.Route
		want       dialect.Request
	}{
		{"chat", `{"model":"llama","messages":[{"role":"user","content":"hi"}],"max_tokens":16,"stream":true}`, chat,
			dialect.Request{Model: "llama", Stream: true, MaxTokens: 16, Answers: 1, Prompt: dialect.Prompt{Bytes: 17}}},
		{"newer name of the limit", `{"max_completion_tokens":7.0}`, chat, dialect.Request{MaxTokens: 7, Answers: 1}},
		{"token ids", `{"prompt":[1,2,3]}`, chat, dialect.Request{Prompt: dialect.Prompt{Tokens: 3}, Answers: 1}},
		{"several prompts", `{"prompt":["a","b"]}`, chat, dialect.Request{Prompt: dialect.Prompt{Bytes: 2, Several: 2}, Answers: 2}},
		{"TGI", `{"inputs":"abc","parameters":{"max_new_tokens":9},"stream":false}`, tgi, dialect.Request{Stream: true, Prompt: dialect.Prompt{Bytes: 3}, MaxTokens: 9, Answers: 1}},
		{"nulls", `{"model":null,"stream":null,"stream_options":null}`, chat, dialect.Request{Answers: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := dialect.Inspect(c.route, []byte(c.body))
			if err != nil {
				t.Fatal(err)
			}
			facts := dialect.Request{
				Model: got.Model, Stream: got.Stream, UsageAsked: got.UsageAsked,
				Prompt: got.Prompt, MaxTokens: got.MaxTokens, Answers: got.Answers,
			}
			if !reflect.DeepEqual(facts, c.want) {
				t.Errorf("got %+v, want %+v", facts, c.want)
			}
		})
	}
}

func TestBadBodiesAreRefusedWithACodeAndWithoutTheirContent(t *testing.T) {
	for body, code := range map[string]string{
		``: "request.bad_json", `[]`: "request.bad_json", `"secret"`: "request.bad_json", `{"a":secret}`: "request.bad_json",
		`{"a":1}{"b":2}`: "request.bad_json", `{"x":NaN}`: "request.bad_json", "\xff\xfe{\x00}\x00": "request.bad_json",
		strings.Repeat("[", 20000):                        "request.bad_json",
		`{"model":"secret","mo\u0064el":"b"}`:             "request.duplicate_member",
		`{"model":["secret"]}`:                            "request.bad_member",
		`{"model":"` + strings.Repeat("m", 300) + `"}`:    "request.bad_member",
		`{"stream":"secret"}`:                             "request.bad_member",
		`{"stream_options":"secret"}`:                     "request.bad_member",
		`{"stream_options":{"include_usage":"secret"}}`:   "request.bad_member",
		`{"stream_options":{},"stream_options":{"a":[]}}`: "request.duplicate_member",
	} {
		_, err := dialect.Inspect(chat, []byte(body))
		var e *dialect.Error
		if !errors.As(err, &e) || e.Code != code || e.Status != 400 || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.60q: got %v, want %s", body, err, code)
		}
	}
}

func TestUsageIsFoundInEveryShape(t *testing.T) {
	said := func(prompt, output int) dialect.Usage {
		u := dialect.NoUsage()
		u.Prompt, u.Output = prompt, output
		return u
	}
	more := func(u dialect.Usage, cached, reasoning int) dialect.Usage {
		u.Cached, u.Reasoning = cached, reasoning
		return u
	}
	kv := dialect.NoUsage()
	kv.KV = json.RawMessage(`{"object":"o"}`)
	for _, c := range []struct {
		name, text string
		dialect    dialect.Dialect
		want       dialect.Usage
	}{
		{"openai", `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, dialect.OpenAI, said(3, 4)},
		{"openai with details", `{"usage":{"prompt_tokens":30,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":2}}}`, dialect.OpenAI, more(said(30, 4), 16, 2)},
		{"responses", `{"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4,"input_tokens_details":{"cached_tokens":2}}}}`, dialect.OpenAI, more(said(3, 4), 2, -1)},
		{"messages", `{"type":"message_start","message":{"usage":{"input_tokens":3}}}`, dialect.Anthropic, said(3, -1)},
		{"messages with a cache", `{"usage":{"input_tokens":10,"cache_read_input_tokens":9000,"cache_creation_input_tokens":500,"output_tokens":5}}`, dialect.Anthropic, more(said(9510, 5), 9000, -1)},
		{"OpenAI's total has the cache in it", `{"usage":{"prompt_tokens":10,"cache_read_input_tokens":9}}`, dialect.OpenAI, said(10, -1)},
		{"tgi", `{"generated_text":"a","details":{"generated_tokens":4,"input_length":3}}`, dialect.TGI, said(3, 4)},
		{"tgi, a list, the best of three", `[{"generated_text":"a","details":{"generated_tokens":4,"tokens":[{"id":1,"text":"usage"}],"best_of_sequences":[{"generated_tokens":5},{"generated_tokens":6}]}}]`, dialect.TGI, said(-1, 15)},
		{"a list of answers", `[{"usage":{"prompt_tokens":3,"completion_tokens":1}},{"usage":{"prompt_tokens":4,"completion_tokens":2}}]`, dialect.OpenAI, said(7, 3)},
		{"embeddings that say the total only", `{"data":[{"embedding":[1e-3,-2]}],"usage":{"total_tokens":12}}`, dialect.OpenAI, said(12, -1)},
		{"rerank", `{"id":"r","usage":{"prompt_tokens":21,"total_tokens":21},"results":[]}`, dialect.OpenAI, said(21, -1)},
		{"cohere", `{"id":"r","results":[],"meta":{"billed_units":{"input_tokens":9},"api_version":{"version":"2"}}}`, dialect.OpenAI, said(9, -1)},
		{"audio", `{"text":"hello","usage":{"type":"tokens","input_tokens":14,"output_tokens":45,"total_tokens":59}}`, dialect.OpenAI, said(14, 45)},
		{"audio by time", `{"text":"hello","usage":{"type":"duration","seconds":3}}`, dialect.OpenAI, dialect.NoUsage()},
		{"before everything else", `{"usage":{"prompt_tokens":3},"pad":"` + strings.Repeat("p", 5<<20) + `"}`, dialect.OpenAI, said(3, -1)},
		{"null", `{"usage":null}`, dialect.OpenAI, dialect.NoUsage()},
		{"text that looks like it", `{"choices":[{"text":"\"usage\":{}"}]}`, dialect.OpenAI, dialect.NoUsage()},
		{"negative", `{"usage":{"prompt_tokens":-3}}`, dialect.OpenAI, dialect.NoUsage()},
		{"not JSON", `"usage" [DONE]`, dialect.OpenAI, dialect.NoUsage()},
		{"numbers that JSON has not", `{"logprobs":[NaN,-Infinity],"usage":{"prompt_tokens":3}}`, dialect.OpenAI, said(3, -1)},
		{"kv", `{"kv_transfer_params":{"object":"o"}}`, dialect.OpenAI, kv},
	} {
		a := &dialect.Answer{Dialect: c.dialect}
		a.Whole([]byte(c.text))
		if got := a.Usage(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	got := dialect.NoUsage()
	dialect.ReadUsageHeaders(http.Header{"X-Prompt-Tokens": {"3"}, "X-Generated-Tokens": {"4"}}, &got)
	if got.Prompt != 3 || got.Output != 4 {
		t.Errorf("headers: got %+v, want 3 and 4", got)
	}
}

// FuzzRewrite: what is written decodes to what came in, but for the members of the proxy; nothing of the client's own
// parameters is left, whatever their spelling.
func FuzzRewrite(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"model":"m","stream":true}`, `{"kv_\u0074ransfer_params":{},"a":[1,{"b":"}"}]}`, `{"a":"\\\"","b":-1.5e+10}`,
		` { "cache_salt" : null , "stream_options" : { "x" : 1 } , "stream":true } `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := dialect.Inspect(chat, body)
		if err != nil {
			return
		}
		before := decode(t, body)
		out, added, err := r.Rewrite(dialect.Params{KV: "mine", CacheSalt: "salt", Usage: true})
		if err != nil {
			t.Fatal(err)
		}
		after := decode(t, out.Bytes())
		if string(after["kv_transfer_params"]) != `"mine"` || string(after["cache_salt"]) != `"salt"` {
			t.Fatalf("got %s", out.Bytes())
		}
		text := out.Bytes()
		if again, err := dialect.Inspect(chat, text); err != nil || added && !again.UsageAsked {
			t.Fatalf("%s: got %v", text, err)
		}
		for _, m := range []map[string]json.RawMessage{before, after} {
			delete(m, "kv_transfer_params")
			delete(m, "cache_salt")
			if added {
				delete(m, "stream_options")
			}
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("got %s of %s", text, body)
		}
	})
}

func decode(t *testing.T, text []byte) map[string]json.RawMessage {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return m
}
