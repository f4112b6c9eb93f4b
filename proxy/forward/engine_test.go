package forward_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// engine is an HTTP server that speaks vLLM's and TGI's routes as those engines do. The prompt says how it behaves:
// "die" cuts the connection in mid-stream, "hang" waits until the request is cancelled, "error" is refused.
type engine struct {
	*httptest.Server
	hung chan struct{} // closed when a hanging request was cancelled
	free chan struct{} // lets a request go on that waits for it

	mu   sync.Mutex
	seen []seen
}

type seen struct {
	method, path string
	header       http.Header
	body         string
	proto        string
}

func startEngine(t *testing.T, h2c bool) *engine {
	t.Helper()
	e := &engine{hung: make(chan struct{}, 100), free: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", e.chat)
	mux.HandleFunc("POST /v1/completions", e.chat)
	mux.HandleFunc("POST /generate", e.generate)
	mux.HandleFunc("POST /generate_stream", e.generateStream)
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n")
	})
	mux.HandleFunc("POST /tokenize", tokenize)
	mux.HandleFunc("POST /detokenize", detokenize)
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) { // TGI: either of the two, by the body
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if strings.Contains(string(body), `"stream":true`) || strings.Contains(string(body), `"stream": true`) {
			e.generateStream(w, r)
			return
		}
		e.generate(w, r)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/empty404":
			w.WriteHeader(http.StatusNotFound)
		case "/v1/trailers":
			w.Header().Set("Trailer", "X-Checksum")
			_, _ = io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Checksum", "abc")
		default:
			_, _ = fmt.Fprintf(w, `{"path":%q}`, r.URL.Path)
		}
	})
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if r.URL.Path != "/metrics" { // the proxy asks for these whenever it likes
			e.mu.Lock()
			e.seen = append(e.seen, seen{r.Method, r.URL.RequestURI(), r.Header.Clone(), string(body), r.Proto})
			e.mu.Unlock()
		}
		w.Header().Set("Semproxy-Decision", "forged")
		mux.ServeHTTP(w, r)
	}))
	e.Config.Protocols = new(http.Protocols)
	e.Config.Protocols.SetHTTP1(!h2c)
	e.Config.Protocols.SetUnencryptedHTTP2(h2c)
	e.Start()
	t.Cleanup(e.Close)
	return e
}

// requests are those that reached the engine.
func (e *engine) requests() []seen {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]seen(nil), e.seen...)
}

func (e *engine) last(t *testing.T) seen {
	t.Helper()
	all := e.requests()
	if len(all) == 0 {
		t.Fatal("nothing reached the engine")
	}
	return all[len(all)-1]
}

type ask struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Messages  []struct{ Content string } `json:"messages"`
	Prompt    any                        `json:"prompt"`
	Inputs    string                     `json:"inputs"`
	MaxTokens int                        `json:"max_tokens"`
	Tools     []struct {
		Function struct{ Name string }
	} `json:"tools"`
	Parameters struct {
		MaxNewTokens int `json:"max_new_tokens"`
	} `json:"parameters"`
}

func (a *ask) text() string {
	text := a.Inputs
	if a.Prompt != nil {
		text += fmt.Sprint(a.Prompt)
	}
	for _, m := range a.Messages {
		text += m.Content
	}
	return text
}

func (e *engine) chat(w http.ResponseWriter, r *http.Request) {
	var a ask
	if json.NewDecoder(r.Body).Decode(&a) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	text := a.text()
	prompt := len(text) / 5 // five bytes a token, however the proxy guesses
	output := a.MaxTokens
	if output == 0 {
		output = 3
	}
	usage := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, prompt, output, prompt+output)
	switch {
	case strings.Contains(text, "error"):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"object":"error","message":"no","type":"BadRequestError","code":400}`)
		return
	case !a.Stream && strings.Contains(text, "wait"):
		<-e.free
	case !a.Stream && strings.Contains(text, "hang"):
		e.hang(r)
		return
	}
	if !a.Stream && len(a.Tools) > 0 {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"x","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":%q,"arguments":"{}"}}]}}],"usage":%s}`, a.Tools[0].Function.Name, usage)
		return
	}
	if !a.Stream {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"id":"x","model":%q,"choices":[{"message":{"content":"hello"}}],"usage":%s,"kv_transfer_params":{"object":"returned"}}`, a.Model, usage)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range output {
		_, _ = fmt.Fprintf(w, "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"t%d\"}}]}\n\n", i)
		w.(http.Flusher).Flush()
		switch {
		case strings.Contains(text, "die"):
			panic(http.ErrAbortHandler)
		case strings.Contains(text, "hang"):
			e.hang(r)
			return
		case strings.Contains(text, "step"):
			<-e.free
		}
	}
	if a.StreamOptions.IncludeUsage {
		_, _ = fmt.Fprintf(w, "data: {\"id\":\"x\",\"choices\":[],\"usage\":%s}\n\n", usage)
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// words are the tokens of tokenize; a token is a place in it.
var words struct {
	sync.Mutex
	all []string
}

// tokenize renders a chat into words and numbers them.
func tokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model    string                           `json:"model"`
		Messages []struct{ Role, Content string } `json:"messages"`
		Prompt   *bool                            `json:"add_generation_prompt"`
	}
	switch err := json.NewDecoder(r.Body).Decode(&q); {
	case err != nil, q.Model == "untokenizable":
		w.WriteHeader(http.StatusBadRequest)
		return
	case q.Messages == nil:
		_, _ = io.WriteString(w, `{"path":"/tokenize"}`)
		return
	}
	text := []string{"<s>"}
	for _, m := range q.Messages {
		text = append(append(text, "<|"+m.Role+"|>"), strings.Fields(m.Content)...)
	}
	if q.Prompt == nil || *q.Prompt {
		text = append(text, "<|assistant|>")
	}
	words.Lock()
	defer words.Unlock()
	tokens := make([]int, len(text))
	for i, word := range text {
		if tokens[i] = slices.Index(words.all, word); tokens[i] < 0 {
			tokens[i], words.all = len(words.all), append(words.all, word)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"tokens": tokens, "count": len(tokens)})
}

func detokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model  string
		Tokens []int
	}
	words.Lock()
	defer words.Unlock()
	_ = json.NewDecoder(r.Body).Decode(&q)
	if q.Model == "" {
		_, _ = io.WriteString(w, `{"path":"/detokenize"}`)
		return
	}
	text := make([]string, len(q.Tokens))
	for i, t := range q.Tokens {
		text[i] = words.all[t]
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"prompt": strings.Join(text, " ")})
}

func (e *engine) hang(r *http.Request) {
	<-r.Context().Done()
	e.hung <- struct{}{}
}

func (e *engine) generate(w http.ResponseWriter, r *http.Request) {
	var a ask
	_ = json.NewDecoder(r.Body).Decode(&a)
	w.Header().Set("X-Prompt-Tokens", strconv.Itoa(len(a.Inputs)/5))
	w.Header().Set("X-Generated-Tokens", strconv.Itoa(a.Parameters.MaxNewTokens))
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == "/" {
		_, _ = io.WriteString(w, `[{"generated_text":"hello"}]`)
		return
	}
	_, _ = io.WriteString(w, `{"generated_text":"hello"}`)
}

func (e *engine) generateStream(w http.ResponseWriter, r *http.Request) {
	var a ask
	_ = json.NewDecoder(r.Body).Decode(&a)
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data:{\"index\":1,\"token\":{\"id\":1,\"text\":\"a\"},\"generated_text\":null,\"details\":null}\n\n")
	_, _ = fmt.Fprintf(w, "data:{\"index\":2,\"token\":{\"id\":2,\"text\":\"b\"},\"generated_text\":\"ab\",\"details\":{\"finish_reason\":\"length\",\"generated_tokens\":2,\"input_length\":%d}}\n\n", len(a.Inputs)/5)
}
