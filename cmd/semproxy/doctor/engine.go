package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Engine is what the proxy stands in front of.
type Engine struct {
	URL  string
	Kind string
	Key  func() string // bearer token; nil: none
}

// Engine asks the engine for its routes, and what it tells of its adapter.
func (r *Report) Engine(ctx context.Context, e Engine) {
	base := strings.Replace(strings.TrimSuffix(e.URL, "/"), "h2c://", "http://", 1)
	host := strings.TrimPrefix(strings.TrimPrefix(base, "http://"), "https://")
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	ask := func(method, path, body string) (int, string, http.Header, error) {
		req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
		if err != nil {
			return 0, "", nil, err
		}
		if e.Key != nil {
			req.Header.Set("Authorization", "Bearer "+e.Key())
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, "", nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
		return resp.StatusCode, string(text), resp.Header, err
	}
	status, text, header, err := ask("GET", "/v1/models", "")
	switch {
	case err != nil:
		what, remedy, ok := Network(host, err)
		if !ok {
			what, remedy = err.Error(), "check proxy.engine.url"
		}
		r.Fail("engine.connect", what, remedy+" (proxy.engine.url)")
		return
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		r.Fail("engine.auth", fmt.Sprintf("the engine answers %d: it wants another key", status), "set proxy.engine.apiKeyFile to the engine's key")
		return
	case status != http.StatusOK:
		r.Fail("engine.routes", fmt.Sprintf("GET /v1/models answers %d: that is no engine with OpenAI's routes, or it is still starting", status), "check proxy.engine.url and the engine's log")
		return
	}
	model := firstModel(text)
	if model == "" {
		r.Fail("engine.routes", "GET /v1/models lists no model", "check that proxy.engine.url is the engine, and that it has loaded its model")
		return
	}
	r.OK("engine.routes", "serves "+model)
	if t, err := http.ParseTime(header.Get("Date")); err == nil {
		r.Clock("engine", t)
	}
	if e.Kind != "vllm" {
		r.Warn("engine.adapter", "proxy.engine.kind is "+e.Kind+": requests are forwarded, and nothing is compressed", "run vLLM with the connector of connectors/python and set proxy.engine.kind: vllm")
		return
	}
	r.vllm(ask, model)
}

// vllm looks at what only vLLM has.
func (r *Report) vllm(ask func(method, path, body string) (int, string, http.Header, error), model string) {
	status, text, _, err := ask("GET", "/version", "")
	if err != nil || status != http.StatusOK {
		r.Fail("engine.kind", fmt.Sprintf("proxy.engine.kind is vllm, but GET /version answers %d: this is another engine", status), "set proxy.engine.kind to tgi or openai, or point proxy.engine.url at vLLM")
		return
	}
	var v struct {
		Version string `json:"version"`
	}
	_ = json.Unmarshal([]byte(text), &v)
	r.OK("engine.version", "vLLM "+v.Version)
	question, _ := json.Marshal(map[string]string{"model": model, "prompt": "a"})
	if status, _, _, err := ask("POST", "/tokenize", string(question)); err != nil || status != http.StatusOK {
		r.Warn("engine.tokenize", fmt.Sprintf("POST /tokenize answers %d: where protected messages lie cannot be found, so such prompts stay exact", status), "do not close /tokenize to the sidecar")
	} else {
		r.OK("engine.tokenize", "messages can be found")
	}
	if _, text, _, err := ask("GET", "/metrics", ""); err != nil || !strings.Contains(text, "cache_usage_perc") {
		r.Warn("engine.metrics", "GET /metrics does not tell the use of KV memory: the gate cannot see pressure", "run vLLM without --disable-log-stats")
	} else {
		r.OK("engine.metrics", "the use of KV memory is known")
	}
	switch status, text, _, err := ask("GET", "/server_info", ""); {
	case err != nil || status != http.StatusOK:
		r.Warn("engine.adapter", "the engine does not tell which connector and attention backend it runs", "start vLLM with VLLM_SERVER_DEV_MODE=1 while you look, or run semproxy doctor --admin URL after some traffic: it sees whether pages come")
	case !strings.Contains(text, "SemproxyConnector"):
		r.Fail("engine.adapter", "vLLM runs without semproxy's connector: nothing is compressed", `start it with --kv-transfer-config '{"kv_connector": "SemproxyConnector", ...}' (connectors/python)`)
	case !strings.Contains(text, "CUSTOM"):
		r.Fail("engine.adapter", "vLLM runs semproxy's connector with an attention backend that knows no bias", "start it with --attention-backend CUSTOM")
	default:
		r.OK("engine.adapter", "SemproxyConnector with the attention backend CUSTOM")
	}
}

func firstModel(text string) string {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal([]byte(text), &list) != nil || len(list.Data) == 0 {
		return ""
	}
	return list.Data[0].ID
}
