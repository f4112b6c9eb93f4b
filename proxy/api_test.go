package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/verify"
)

const half = `
apiVersion: semproxy.io/v1
profiles: { half: { method: semantic, ratio: 0.5 } }
tenants:
  acme: { rules: [ { match: { minTokens: 100 }, profile: half } ] }
  globex: {}
`

// apiServer is an admin with a policy file, a request that was decided by it, and one that was refused.
func apiServer(t *testing.T, change func(*AdminConfig)) (*Admin, *watch.Watcher) {
	t.Helper()
	path := t.TempDir() + "/p.yaml"
	if err := os.WriteFile(path, []byte(half), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := watch.New(path, watch.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.Current().Decide(policy.Request{Tenant: "acme", Model: "llama", Tokens: 200})
	if err != nil {
		t.Fatal(err)
	}
	ring := recent.New(10)
	ring.Add(recent.Request{ID: "refused", Object: "o0", Tenant: "globex", Start: time.Unix(0, 0), Done: true, Status: 429, Error: "limit.requests"})
	ring.Add(recent.Request{
		ID: "r1", Object: "o1", TraceID: "t1", Start: time.Unix(1, 0), Tenant: "acme", Method: "POST", Route: "/v1/chat/completions", Model: "llama",
		Done: true, Status: 200, PromptTokens: 210, PromptEstimate: 200, OutputTokens: 5, UsageKnown: true, Decision: &d,
		Gate: &gate.Verdict{Compress: true, Reason: gate.Pays, Why: "it saves", CostMS: 1, SavedMS: 2, Output: 3, KVUsage: 0.5}, KV: json.RawMessage(`{"a":1}`),
	})
	ring.Page("acme", "t1", recent.Page{
		Sequence: "o1", Outcome: "compressed", Rule: d.Rule, Profile: "half", Object: "k", Device: "cpu:avx512", Layers: 2, Heads: 2, Tokens: 210,
		Cores: 105, Ratio: 0.5, BytesIn: 10, BytesOut: 5, Guard: "held", KeySimilarity: 0.9, Measured: true, AttentionError: 0.01, WorstError: 0.02, WorstHead: "1/3",
	})
	board := recent.NewBoard(nil)
	board.Page("acme", &recent.PageRecord{Tenant: "acme", Model: "llama", Page: recent.Page{
		Sequence: "s1", Outcome: "compressed", Tokens: 100, Cores: 50, Ratio: 0.5, BytesIn: 1000, BytesOut: 500, Measured: true, AttentionError: 0.1,
		PerLayer: []recent.Layer{{Layer: 3, Tokens: 100, Ratio: 0.5}},
	}})
	cfg := AdminConfig{
		Requests: ring, Policies: w, Board: board, Studio: fakeStudio{},
		Catalog: catalog{policies: map[string]any{"version": w.Current().Version(), "profiles": map[string]any{}}, tenants: []any{}},
	}
	if change != nil {
		change(&cfg)
	}
	return serveAdmin(t, cfg), w
}

// fakeStudio answers as a studio does; the real one is tested where it is (cmd/semproxy).
type fakeStudio struct{}

type mistake struct{ error }

func (mistake) Code() string { return "studio.profile" }

func (fakeStudio) About() any {
	return json.RawMessage(`{"sources": [], "methods": [], "budgets": ["adaptive"], "text": true, "maxChars": 10}`)
}

func (fakeStudio) Tokens(source string) (any, error) {
	if source == "" {
		return nil, mistake{errors.New("no page")}
	}
	return json.RawMessage(`{"source": "x", "redacted": true, "words": [], "ids": [], "breaks": [1]}`), nil
}

func (fakeStudio) AddText(context.Context, []byte) (any, error) {
	return json.RawMessage(`{"id": "text:1", "kind": "text", "title": "t", "model": "m", "layers": 1, "heads": 1, "queryHeads": 1, "tokens": 9, "bytes": 9, "text": true}`), nil
}

func (fakeStudio) Run(_ context.Context, body []byte) (any, error) {
	if len(body) < 3 {
		return nil, mistake{errors.New("no profile")}
	}
	return json.RawMessage(`{"source": "x", "outcome": "compressed", "guard": "off", "layers": 1, "heads": 1, "tokens": 2, "ratio": 0.5, "bytesIn": 2, "bytesOut": 1, "ms": 1,
		"measured": true, "attentionError": 0.1, "slots": [[1]], "loss": [[0.1]], "yaml": ""}`), nil
}

func (fakeStudio) Curve(context.Context, []byte) (any, error) {
	return json.RawMessage(`{"method": "weighted", "points": [], "layers": 1, "of": 1}`), nil
}

func send(t *testing.T, method, url, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		request.Header.Set(name, value)
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text), err}
}

// quarter is half with another ratio, and without globex.
var quarter = strings.ReplaceAll(strings.ReplaceAll(half, "0.5", "0.3"), "  globex: {}\n", "")

type totals struct{}

func (totals) List() []verify.Counts {
	return []verify.Counts{{Tenant: "acme", Profile: "half", Digest: "d", Samples: 8, Changed: 1, Why: "x"}}
}

// documented is the API's document.
type documented struct {
	*jsonschema.Compiler
	routes []string // as "GET /path", sorted
}

func readDocument(t *testing.T, text string) *documented {
	t.Helper()
	doc := decodeJSON[struct {
		Paths map[string]map[string]struct {
			Responses map[string]any `json:"responses"`
		} `json:"paths"`
	}](t, text)
	d := &documented{Compiler: jsonschema.NewCompiler()}
	for path, methods := range doc.Paths {
		for method := range methods {
			d.routes = append(d.routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(d.routes)
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = d.AddResource("api.json", parsed)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// check holds an answer against the document.
func (d *documented) check(method, path, status, body string) error {
	schema, err := d.Compile("api.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(path) +
		"/" + strings.ToLower(method) + "/responses/" + status + "/content/application~1json/schema")
	if err != nil {
		return err
	}
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err == nil {
		err = schema.Validate(parsed)
	}
	if err != nil {
		return fmt.Errorf("got %s\n%w", body, err)
	}
	return nil
}

// call is one of the API: target is the path where that is "", what follows it where that is a query.
type call struct {
	method, path, target, body string
	headers                    []string
	status                     string
}

// callsOfEveryRoute are with the token that lets one in and the match that lets one write.
func callsOfEveryRoute(token, match string) []call {
	return []call{
		{"GET", "/api/v1/openapi.json", "", "", []string{token}, "200"},
		{"GET", "/api/v1/tenants", "", "", []string{token}, "200"},
		{"GET", "/api/v1/policies", "", "", []string{token}, "200"},
		{"GET", "/api/v1/verify", "", "", []string{token}, "200"},
		{"GET", "/api/v1/requests", "", "", []string{token}, "200"},
		{"GET", "/api/v1/requests", "?limit=x", "", []string{token}, "400"},
		{"GET", "/api/v1/requests", "", "", nil, "401"},
		{"GET", "/api/v1/requests/{id}/explain", "/api/v1/requests/r1/explain", "", []string{token}, "200"},
		{"GET", "/api/v1/requests/{id}/explain", "/api/v1/requests/refused/explain", "", []string{token}, "200"},
		{"GET", "/api/v1/requests/{id}/explain", "/api/v1/requests/none/explain", "", []string{token}, "404"},
		{"GET", "/api/v1/overview", "?tenant=acme", "", []string{token}, "200"},
		{"GET", "/api/v1/overview", "", "", nil, "401"},
		{"GET", "/api/v1/pages", "", "", []string{token}, "200"},
		{"GET", "/api/v1/pages", "?limit=0", "", []string{token}, "400"},
		{"GET", "/api/v1/pages/{id}", "/api/v1/pages/p1", "", []string{token}, "200"},
		{"GET", "/api/v1/pages/{id}", "/api/v1/pages/s1", "", []string{token}, "200"},
		{"GET", "/api/v1/pages/{id}", "/api/v1/pages/none", "", []string{token}, "404"},
		{"GET", "/api/v1/studio", "", "", []string{token}, "200"},
		{"GET", "/api/v1/studio/tokens", "?source=x", "", []string{token}, "200"},
		{"GET", "/api/v1/studio/tokens", "", "", []string{token}, "422"},
		{"POST", "/api/v1/studio/text", "", "{}", []string{token}, "200"},
		{"POST", "/api/v1/studio/run", "", `{"source": "x"}`, []string{token}, "200"},
		{"POST", "/api/v1/studio/run", "", `{}`, []string{token}, "422"},
		{"POST", "/api/v1/studio/run", "", strings.Repeat(" ", 2<<20), []string{token}, "413"},
		{"POST", "/api/v1/studio/curve", "", "{}", []string{token}, "200"},
		{"POST", "/api/v1/studio/run", "", `{}`, nil, "401"},
		{"POST", "/api/v1/policies/dry-run", "", quarter, []string{token}, "200"},
		{"POST", "/api/v1/policies/dry-run", "", "tenants: []", []string{token}, "422"},
		{"POST", "/api/v1/policies/dry-run", "", strings.Repeat("#", 2<<20), []string{token}, "413"},
		{"PUT", "/api/v1/policies", "", quarter, []string{token}, "428"},
		{"PUT", "/api/v1/policies", "", quarter, []string{token, `If-Match: "old"`}, "409"},
		{"PUT", "/api/v1/policies", "", "x", []string{token, match}, "422"},
		{"PUT", "/api/v1/policies", "", quarter, nil, "401"},
		{"PUT", "/api/v1/policies", "", quarter, []string{token, match}, "200"},
	}
}

// Every route of the API is in the document, every path of the document is a route, and the answers are as it says.
func TestTheDocumentIsTrue(t *testing.T) {
	admin, w := apiServer(t, func(c *AdminConfig) {
		c.Writable, c.Token, c.Verify = true, func() string { return "secret" }, totals{}
	})
	const token = "Authorization: Bearer secret"
	doc := readDocument(t, send(t, "GET", admin.URL()+"/api/v1/openapi.json", "", token).body)
	var routes []string
	for _, r := range adminRoutes(admin.cfg).Routes() {
		if strings.HasPrefix(r.Path, "/api/") && r.Method != http.MethodHead {
			routes = append(routes, r.Method+" "+strings.ReplaceAll(r.Path, ":id", "{id}"))
		}
	}
	slices.Sort(routes)
	if !slices.Equal(doc.routes, routes) {
		t.Errorf("got routes %v, described %v", routes, doc.routes)
	}
	seen := map[string]bool{}
	for _, c := range callsOfEveryRoute(token, `If-Match: "`+w.Current().Version()+`"`) {
		target := c.path + c.target
		if strings.HasPrefix(c.target, "/") {
			target = c.target
		}
		got := send(t, c.method, admin.URL()+target, c.body, c.headers...)
		name := c.method + " " + target + " " + c.status
		if got.status != atoi(t, c.status) {
			t.Errorf("%s: got %d %.200s", name, got.status, got.body)
			continue
		}
		if err := doc.check(c.method, c.path, c.status, got.body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		seen[c.method+" "+c.path] = true
	}
	for _, r := range doc.routes {
		if !seen[r] {
			t.Errorf("%s: no answer was held against the document; had %v", r, slices.Sorted(maps.Keys(seen)))
		}
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	var n int
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheAPIIsForThoseWhoMay(t *testing.T) {
	open, _ := apiServer(t, nil)
	closed, _ := apiServer(t, func(c *AdminConfig) { c.Token = func() string { return "secret" } })
	for _, c := range []struct {
		name    string
		admin   *Admin
		headers []string
		status  int
	}{
		{"this machine, without a token", open, nil, 200},
		{"a web page that points its name here", open, []string{"Host: evil.example"}, 403},
		{"a web page of another host", open, []string{"Origin: https://evil.example"}, 403},
		{"a web page without an origin of its own", open, []string{"Origin: null"}, 403},
		{"the console", open, []string{"Origin: http://127.0.0.1:9090"}, 200},
		{"no token", closed, nil, 401},
		{"a wrong token", closed, []string{"Authorization: Bearer secre"}, 401},
		{"another scheme", closed, []string{"Authorization: Basic secret"}, 401},
		{"an empty token", closed, []string{"Authorization: Bearer "}, 401},
		{"the token", closed, []string{"Authorization: Bearer secret"}, 200},
		{"the token, by a name", closed, []string{"Authorization: Bearer secret", "Host: semproxy.internal"}, 200},
	} {
		for _, path := range []string{"/api/v1/requests", "/api/v1/policies", "/api/v1/tenants", "/api/v1/requests/r1/explain", "/api/v1/openapi.json", "/api/v1/overview", "/api/v1/pages", "/api/v1/pages/p1", "/api/v1/studio", "/api/v1/studio/tokens?source=x"} {
			if got := send(t, "GET", c.admin.URL()+path, "", c.headers...); got.status != c.status {
				t.Errorf("%s: %s: got %d %s, want %d", c.name, path, got.status, got.body, c.status)
			}
		}
		if got := send(t, "GET", c.admin.URL()+"/healthz", "", c.headers...); got.status != 200 {
			t.Errorf("%s: /healthz: got %d, want 200", c.name, got.status)
		}
	}
	if got := send(t, "PUT", open.URL()+"/api/v1/policies", quarter, `If-Match: "x"`); got.status != 403 || !strings.Contains(got.body, "read_only") {
		t.Errorf("a change by default: got %d %s, want 403 read_only", got.status, got.body)
	}
	r := httptest.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1/api/v1/requests", http.NoBody)
	r.RemoteAddr = "192.0.2.1:5"
	answer := httptest.NewRecorder()
	if adminRoutes(open.cfg).ServeHTTP(answer, r); answer.Code != 403 {
		t.Errorf("another machine, without a token: got %d, want 403", answer.Code)
	}
}

func TestOfTwoWhoReplaceAtOnceOneIsRefused(t *testing.T) {
	admin, w := apiServer(t, func(c *AdminConfig) { c.Writable, c.Token = true, func() string { return "secret" } })
	match := `If-Match: "` + w.Current().Version() + `"`
	statuses := make([]int, 8)
	var group sync.WaitGroup
	for i := range statuses {
		group.Go(func() {
			text := strings.ReplaceAll(half, "0.5", "0."+string(rune('1'+i)))
			statuses[i] = send(t, "PUT", admin.URL()+"/api/v1/policies", text, match, "Authorization: Bearer secret").status
		})
	}
	group.Wait()
	slices.Sort(statuses)
	// The fifth writes what is in force already, so that its version may be right twice.
	if n := len(statuses); statuses[0] != 200 || statuses[n-1] != 409 || slices.Contains(statuses[2:], 200) {
		t.Errorf("got %v, want one or two that were taken and conflicts", statuses)
	}
}

func TestADryRunSaysWhatWouldHaveChanged(t *testing.T) {
	admin, w := apiServer(t, nil)
	got := decodeJSON[dryRun](t, send(t, "POST", admin.URL()+"/api/v1/policies/dry-run", quarter).body)
	if got.From != w.Current().Version() || got.Requests != 1 || got.Changed != 1 || len(got.Changes) != 1 ||
		got.Changes[0].Before.Ratio != 0.5 || got.Changes[0].After.Ratio != 0.3 || got.Changes[0].ID != "r1" {
		t.Errorf("got %+v, want r1 at 0.3 in place of 0.5", got)
	}
	renamed := strings.ReplaceAll(half, "half", "other")
	if got := decodeJSON[dryRun](t, send(t, "POST", admin.URL()+"/api/v1/policies/dry-run", renamed).body); got.Changed != 0 {
		t.Errorf("a profile of another name: got %+v, want no change", got)
	}
	denied := "apiVersion: semproxy.io/v1\ntenants: { globex: {} }\n"
	got = decodeJSON[dryRun](t, send(t, "POST", admin.URL()+"/api/v1/policies/dry-run", denied).body)
	if got.Denied != 1 || !strings.Contains(got.Changes[0].After.Denied, "acme") {
		t.Errorf("a policy without the tenant: got %+v, want it denied", got)
	}
	if w.Current().Version() != got.From {
		t.Error("the dry run changed the policy")
	}
}

func TestExplainTellsTheWholeStory(t *testing.T) {
	admin, _ := apiServer(t, nil)
	got := decodeJSON[explanation](t, send(t, "GET", admin.URL()+"/api/v1/requests/r1/explain", "").body)
	text := strings.Join(got.Summary, "\n")
	for _, want := range []string{"tenants.acme.rules[0]", "Gate: pays, because it saves.", "Pages: 1 at ratio 0.500, attention error at worst 0.0100."} {
		if !strings.Contains(text, want) {
			t.Errorf("got %s\nwant %s in it", text, want)
		}
	}
	if !got.PolicyTheSame || len(got.Rules) != 1 || !got.Rules[0].Matched || got.Request.Pages[0].Device != "cpu:avx512" {
		t.Errorf("got %+v", got)
	}
	list := decodeJSON[requestList](t, send(t, "GET", admin.URL()+"/api/v1/requests?tenant=globex&limit=1", "").body)
	if len(list.Requests) != 1 || list.Requests[0].ID != "refused" {
		t.Errorf("the requests of globex: got %+v", list)
	}
}
