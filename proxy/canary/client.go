package canary

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// most bounds what an engine may answer.
const most = 1 << 20

func (c *Canary) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	var text io.Reader = http.NoBody
	if body != nil {
		written, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		text = bytes.NewReader(written)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.url.JoinPath(path).String(), text)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if key := c.opt.Key(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the engine's %s cannot be asked: %w", path, err)
	}
	defer func() { _ = response.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(response.Body, 8*most))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the engine's %s broke off: %w", path, err)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("the engine's %s answered %s", path, response.Status)
	}
	return answer, nil
}

// model is the one that is configured, else the first that the engine has.
func (c *Canary) model(ctx context.Context) (string, error) {
	if c.opt.Model != "" {
		return c.opt.Model, nil
	}
	text, err := c.do(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return "", err
	}
	var list struct {
		Data []struct{ ID string } `json:"data"`
	}
	if json.Unmarshal(text, &list) != nil || len(list.Data) == 0 || list.Data[0].ID == "" {
		return "", errors.New("the engine names no model in /v1/models; configure one")
	}
	return list.Data[0].ID, nil
}

// complete asks the question.
func (c *Canary) complete(ctx context.Context, model string, p Params) (Answer, error) {
	text, err := c.do(ctx, http.MethodPost, "/v1/completions", map[string]any{
		"model": model, "prompt": Prompt(), "temperature": 0, "seed": 0, "max_tokens": c.opt.Tokens, "logprobs": 1,
		"kv_transfer_params": p.KV, "cache_salt": p.Salt,
	})
	if err != nil {
		return Answer{}, err
	}
	var answer struct {
		Choices []struct {
			Text     string
			Logprobs *struct {
				Tokens        []string
				TokenLogprobs []float64 `json:"token_logprobs"`
			}
		}
	}
	if json.Unmarshal(text, &answer) != nil || len(answer.Choices) == 0 {
		return Answer{}, errors.New("the engine's /v1/completions did not answer with a choice")
	}
	one := answer.Choices[0]
	if one.Logprobs != nil && len(one.Logprobs.Tokens) > 0 {
		return Answer{one.Logprobs.Tokens, one.Logprobs.TokenLogprobs}, nil
	}
	words := strings.Fields(one.Text) // an engine that gives no log probabilities
	if len(words) == 0 {
		return Answer{}, errors.New("the engine's /v1/completions answered with nothing")
	}
	return Answer{Tokens: words}, nil
}

// started is when the engine's process began, by its /metrics, in seconds; 0 when it does not say.
func (c *Canary) started(ctx context.Context) (float64, error) {
	text, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, most)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "process_start_time_seconds "); ok {
			value, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64) // else it does not say
			return value, nil
		}
	}
	return 0, nil
}
