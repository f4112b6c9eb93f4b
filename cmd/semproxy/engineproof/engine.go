package engineproof

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Answer is what came back for one request.
type Answer struct {
	Text     string    `json:"text"`
	Tokens   []string  `json:"tokens,omitempty"`   // nil: the engine does not say
	Logprobs []float64 `json:"logprobs,omitempty"` // of the tokens
	Prompt   int       `json:"prompt_tokens"`      // as the engine counted; 0: it did not
	Output   int       `json:"output_tokens"`
	Cached   int       `json:"cached_tokens"` // slots that were not computed

	FirstToken time.Duration `json:"first_token_ns"`
	PerSecond  float64       `json:"tokens_per_second"` // after the first; 0: not known

	Decision string  `json:"decision"` // compress or exact; empty: there is no semproxy in front
	Profile  string  `json:"profile"`
	Gate     string  `json:"gate"`
	Ratio    float64 `json:"ratio"` // cores per token of its pages; 0: none were there in time
}

// OnCores reports whether something shows that cores were used: pages that were compressed before the answer had ended, or
// slots that were filled though no other request shares the prefix cache.
func (a *Answer) OnCores() bool { return a.Decision == "compress" && (a.Ratio > 0 || a.Cached > 0) }

// client asks one engine as one tenant.
type client struct {
	base     *url.URL
	key      string
	model    string
	http     *http.Client
	attempts int
	pause    time.Duration // before the second attempt, then twice as long
	salt     bool
	logprobs bool
}

// statusError is an answer of the engine, or the proxy, that is none.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.status, e.text) }

func (c *client) url(path string) string { return c.base.JoinPath(path).String() }

// findModel is the engine's first model.
func (c *client) findModel(ctx context.Context) (string, error) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	err := c.again(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("/v1/models"), http.NoBody)
		if err != nil {
			return err
		}
		res, err := c.do(req)
		if err != nil {
			return err
		}
		defer func() { _ = res.Body.Close() }()
		return json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&list)
	})
	if err == nil && len(list.Data) == 0 {
		err = errors.New("the engine names no model; give --model")
	}
	if err != nil {
		return "", err
	}
	return list.Data[0].ID, nil
}

func (c *client) do(req *http.Request) (*http.Response, error) {
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 500))
	_ = res.Body.Close()
	return nil, &statusError{res.StatusCode, strings.Join(strings.Fields(string(text)), " ")}
}

// again tries a few times where that may help, with growing pauses.
func (c *client) again(ctx context.Context, try func() error) error {
	pause := c.pause
	for n := 1; ; n++ {
		err := try()
		var status *statusError
		if err == nil || n >= c.attempts || ctx.Err() != nil ||
			errors.As(err, &status) && status.status < 500 && status.status != http.StatusTooManyRequests && status.status != http.StatusRequestTimeout {
			return err
		}
		wait := time.NewTimer(pause + rand.N(pause/2+1))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		}
		pause *= 2
	}
}

// ask gets one greedy answer. Where the engine refuses log probabilities it goes on without.
func (c *client) ask(ctx context.Context, p *Prompt, tokens int, compress, salt string) (a *Answer, err error) {
	err = c.again(ctx, func() error {
		a, err = c.once(ctx, p, tokens, compress, salt)
		var status *statusError
		if c.logprobs && errors.As(err, &status) && (status.status == http.StatusBadRequest || status.status == http.StatusUnprocessableEntity) {
			c.logprobs = false
			if a, err = c.once(ctx, p, tokens, compress, salt); err != nil {
				c.logprobs = true // that was not why
			}
		}
		return err
	})
	return a, err
}

func (c *client) once(ctx context.Context, p *Prompt, tokens int, compress, salt string) (*Answer, error) {
	body := map[string]any{
		"model": c.model, "temperature": 0, "seed": 0, "max_tokens": tokens, "stream": true, "stream_options": map[string]any{"include_usage": true},
	}
	path := "/v1/completions"
	if p.Prompt != "" {
		body["prompt"] = p.Prompt
		if c.logprobs {
			body["logprobs"] = 1
		}
	} else {
		path = "/v1/chat/completions"
		body["messages"] = p.Messages
		if c.logprobs {
			body["logprobs"] = true
		}
	}
	if c.salt {
		body["cache_salt"] = salt
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url(path), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	for name, value := range p.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Semproxy-Compress", compress)
	began := time.Now()
	res, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	a := &Answer{}
	if err := a.read(res.Body, began); err != nil {
		return nil, err
	}
	a.said(res.Header)
	a.said(res.Trailer)
	return a, nil
}

// said takes what semproxy tells in headers or trailers.
func (a *Answer) said(h http.Header) {
	parts := strings.Split(h.Get("Semproxy-Decision"), ";")
	if parts[0] != "" {
		a.Decision = strings.TrimSpace(parts[0])
		for _, part := range parts[1:] {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if unquoted, err := strconv.Unquote(value); err == nil {
				value = unquoted
			}
			switch name {
			case "profile":
				a.Profile = value
			case "gate":
				a.Gate = value
			}
		}
	}
	if ratio, err := strconv.ParseFloat(h.Get("Semproxy-Ratio"), 64); err == nil {
		a.Ratio = ratio
	}
}

// event is one of a stream, of either route.
type event struct {
	Choices []struct {
		Text  string `json:"text"`
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		Logprobs *struct {
			Tokens        []string  `json:"tokens"`
			TokenLogprobs []float64 `json:"token_logprobs"`
			Content       []struct {
				Token   string  `json:"token"`
				Logprob float64 `json:"logprob"`
			} `json:"content"`
		} `json:"logprobs"`
	} `json:"choices"`
	Usage *struct {
		Prompt  int `json:"prompt_tokens"`
		Output  int `json:"completion_tokens"`
		Details *struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

// read takes a stream in. One that ends without its last event is an error.
func (a *Answer) read(body io.Reader, began time.Time) error {
	var first, last time.Time
	text := strings.Builder{}
	lines := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if data, found := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data:")); found {
			data = bytes.TrimSpace(data)
			if string(data) == "[DONE]" {
				break
			}
			var e event
			if err := json.Unmarshal(data, &e); err != nil {
				return fmt.Errorf("an event of the stream is not JSON: %w", err)
			}
			if len(e.Error) > 0 && string(e.Error) != "null" {
				return fmt.Errorf("the engine ended the answer: %.300s", e.Error)
			}
			if a.take(&e, &text) {
				last = time.Now()
				if first.IsZero() {
					first = last
				}
			}
		}
		if err != nil {
			return fmt.Errorf("the stream ended too early: %w", err)
		}
	}
	_, _ = io.Copy(io.Discard, lines) // trailers come behind the body's end
	a.Text = text.String()
	if a.Output == 0 {
		a.Output = len(a.Tokens)
	}
	if !first.IsZero() {
		a.FirstToken = first.Sub(began)
		if took := last.Sub(first).Seconds(); a.Output > 1 && took > 0 {
			a.PerSecond = float64(a.Output-1) / took
		}
	}
	return nil
}

// take reports whether the event brought text.
func (a *Answer) take(e *event, text *strings.Builder) (brought bool) {
	for _, c := range e.Choices {
		text.WriteString(c.Text + c.Delta.Content)
		brought = brought || c.Text+c.Delta.Content != ""
		if c.Logprobs == nil {
			continue
		}
		a.Tokens = append(a.Tokens, c.Logprobs.Tokens...)
		a.Logprobs = append(a.Logprobs, c.Logprobs.TokenLogprobs...)
		for _, one := range c.Logprobs.Content {
			a.Tokens, a.Logprobs = append(a.Tokens, one.Token), append(a.Logprobs, one.Logprob)
		}
	}
	if e.Usage != nil {
		a.Prompt, a.Output = e.Usage.Prompt, e.Usage.Output
		if e.Usage.Details != nil {
			a.Cached = e.Usage.Details.Cached
		}
	}
	return brought
}
