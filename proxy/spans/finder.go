package spans

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Options adjust a Finder. The zero value of each field is useful.
type Options struct {
	Key        func() string // the engine's bearer token; nil or "": none
	Transport  http.RoundTripper
	Timeout    time.Duration // for one prompt; 0: 1 s
	Concurrent int           // questions to the engine at one time; 0: 16
	Parts      int           // beginnings of chats remembered; 0: 8192
	Distrust   time.Duration // of a model whose tokens the engine has counted otherwise; 0: 10 min
	Now        func() time.Time
}

// Finder asks one engine. It is safe for concurrent use.
type Finder struct {
	url      *url.URL
	client   *http.Client
	key      func() string
	timeout  time.Duration
	turn     chan struct{}
	parts    cache
	distrust time.Duration
	now      func() time.Time

	mu    sync.Mutex
	until map[string]time.Time // models that are not trusted
}

// New prepares; nothing is connected yet. engine is a base URL of http, https or h2c, which Transport speaks. The caller
// calls Close at the end.
func New(engine *url.URL, o Options) *Finder {
	if o.Key == nil {
		o.Key = func() string { return "" }
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Concurrent <= 0 {
		o.Concurrent = 16
	}
	if o.Parts <= 0 {
		o.Parts = 8192
	}
	if o.Distrust <= 0 {
		o.Distrust = 10 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	target := *engine
	if target.Scheme == "h2c" {
		target.Scheme = "http"
	}
	return &Finder{
		url: &target, client: &http.Client{Transport: o.Transport}, key: o.Key, timeout: o.Timeout,
		turn: make(chan struct{}, o.Concurrent), parts: cache{most: o.Parts}, distrust: o.Distrust, now: o.Now, until: map[string]time.Time{},
	}
}

// Close lets the connections to the engine go that nobody uses.
func (f *Finder) Close() { f.client.CloseIdleConnections() }

// maxModels bounds the models that are remembered as not trusted.
const maxModels = 64

// Mismatch says that the engine has counted other tokens for a prompt of the model than its /tokenize.
func (f *Finder) Mismatch(model string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.until) >= maxModels {
		clear(f.until)
	}
	f.until[model] = f.now().Add(f.distrust)
}

func (f *Finder) distrusts(model string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now().Before(f.until[model])
}

func unavailable(format string, args ...any) error {
	return &Error{OutcomeUnavailable, fmt.Sprintf(format, args...)}
}

// tokenize asks the engine for the tokens of a prompt.
func (f *Finder) tokenize(ctx context.Context, text []byte) ([]int32, error) {
	var answer struct {
		Tokens []int32 `json:"tokens"`
	}
	// A token comes from a byte at least, or from the template.
	if err := f.ask(ctx, "tokenize", text, int64(len(text))*12+4<<20, &answer); err != nil {
		return nil, err
	}
	if len(answer.Tokens) == 0 {
		return nil, unavailable("the engine's /tokenize answered without tokens")
	}
	return answer.Tokens, nil
}

// detokenize asks the engine for the text of tokens.
func (f *Finder) detokenize(ctx context.Context, model string, tokens []int32) (string, error) {
	text, err := json.Marshal(struct {
		Model  string  `json:"model,omitempty"`
		Tokens []int32 `json:"tokens"`
	}{model, tokens})
	if err != nil {
		return "", unavailable("the engine's /detokenize cannot be asked")
	}
	var answer struct {
		Prompt string `json:"prompt"`
	}
	return answer.Prompt, f.ask(ctx, "detokenize", text, int64(len(tokens))*256+1<<20, &answer)
}

// ask puts one question to the engine. Its answer has at most so many bytes.
func (f *Finder) ask(ctx context.Context, route string, text []byte, most int64, answer any) error {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return unavailable("the engine's /%s is asked too often at once", route)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url.JoinPath(route).String(), bytes.NewReader(text))
	if err != nil {
		return unavailable("the engine's /%s cannot be asked", route)
	}
	request.Header.Set("Content-Type", "application/json")
	if key := f.key(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := f.client.Do(request)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return unavailable("the engine's /%s took longer than %s", route, f.timeout)
		}
		return unavailable("the engine's /%s could not be reached", route)
	}
	defer func() { _ = response.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	switch {
	case err != nil:
		return unavailable("the engine's /%s broke off or took longer than %s", route, f.timeout)
	case response.StatusCode != http.StatusOK:
		return unavailable("the engine's /%s answered %d", route, response.StatusCode)
	case int64(len(body)) > most:
		return unavailable("the engine's /%s answered with more than %d bytes", route, most)
	case json.Unmarshal(body, answer) != nil:
		return unavailable("the engine's /%s did not answer with JSON of its shape", route)
	}
	return nil
}

// cache remembers the parts that were asked for last: at least most/2, at most most of them.
type cache struct {
	mu         sync.Mutex
	most       int
	young, old map[[32]byte]part
}

func (c *cache) get(key [32]byte) (part, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.young[key]; ok {
		return p, true
	}
	p, ok := c.old[key]
	if ok {
		c.add(key, p)
	}
	return p, ok
}

func (c *cache) put(key [32]byte, p part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(key, p)
}

func (c *cache) drop(key [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, key)
	delete(c.old, key)
}

// add puts into the young half, which becomes the old one when it is full; c.mu is held.
func (c *cache) add(key [32]byte, p part) {
	if c.young == nil || len(c.young) >= max(1, c.most/2) {
		c.young, c.old = map[[32]byte]part{}, c.young
	}
	c.young[key] = p
}
