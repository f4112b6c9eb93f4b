package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/console"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/studio"
	"github.com/semproxy/semproxy/transport/page"
)

// inspectFlags are the flags of "semproxy inspect".
type inspectFlags struct {
	profile                            compressFlags
	admin, tokenFile, html, out, color string
	layer, head, from, count           int
}

func newInspectCommand() *cobra.Command {
	f := inspectFlags{}
	cmd := &cobra.Command{
		Use:   "inspect PAGE|REQUEST",
		Short: "Look into a page or a request: which tokens became one core, and what was lost where",
		Long: `PAGE is a file in the wire format, one of the demo's pages (demo:kjv), or the id, sequence, object or trace of a page that a
running sidecar remembers; REQUEST is the id of a request through its proxy. A page is compressed as the flags say (a
recorded one as its tenant's policy says) and shown: tokens of one core in one colour, the loss of each layer and head.

In the terminal with 24-bit colours where COLORTERM says so, else 256 colours, else letters. --html writes one file that holds
everything and needs nothing else.`,
		Example: `  semproxy inspect demo:kjv --ratio 0.25
  semproxy inspect page.safetensors --tokenizer tokenizer.json --html page.html
  semproxy inspect p42 --admin http://127.0.0.1:9090`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	p := &f.profile
	cmd.Flags().StringVar(&p.method, "method", "weighted", "one of "+methodWords())
	cmd.Flags().Float64Var(&p.ratio, "ratio", 0.5, "cores kept per token, in (0, 1]")
	cmd.Flags().StringVar(&p.budget, "budget", "", "adaptive, layered or equal, for methods that cluster")
	cmd.Flags().BoolVar(&p.fp8, "fp8", false, "cores in 8 bits")
	cmd.Flags().StringVar(&p.tokenizer, "tokenizer", "", "tokenizer.json of the model: what the tokens say")
	cmd.Flags().IntVar(&f.layer, "layer", -1, "layer to show; -1: a typical one")
	cmd.Flags().IntVar(&f.head, "head", 0, "KV head to show")
	cmd.Flags().IntVar(&f.from, "from", -1, "first token to show; -1: from the middle")
	cmd.Flags().IntVar(&f.count, "tokens", 200, "tokens to show")
	cmd.Flags().StringVar(&f.html, "html", "", "write one self-contained HTML file")
	cmd.Flags().StringVar(&f.admin, "admin", "http://127.0.0.1:9090", "URL of the sidecar's admin listener, for ids")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "file of the admin API's token")
	cmd.Flags().Var(&show.Choice{Value: show.OrAuto(&f.color), Of: []string{"auto", "always", "never"}}, "color", "auto, always or never")
	show.Flag(cmd, &f.out)
	show.Complete(cmd, "method", methodNames())
	show.Complete(cmd, "color", []string{"auto", "always", "never"})
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, name := range configs.Pages() {
			out = append(out, "demo:"+name)
		}
		return out, cobra.ShellCompDirectiveDefault // files too
	}
	return cmd
}

func methodNames() []string {
	var all []string
	for _, m := range policy.Methods() {
		all = append(all, string(m))
	}
	return all
}

// inspected is what is shown of a page.
type inspected struct {
	Title    string          `json:"title"`
	Subtitle string          `json:"subtitle"`
	Method   string          `json:"method"`
	Result   *studio.Result  `json:"result"`
	Tokens   *studio.Tokens  `json:"tokens"`
	Curves   []curveOfMethod `json:"curves,omitempty"`
}

type curveOfMethod struct {
	*studio.Curve
	Evicts bool `json:"evicts"`
}

func (f *inspectFlags) run(cmd *cobra.Command, what string) error {
	ctx := cmd.Context()
	_, fileErr := os.Stat(what)
	demo, isDemo := strings.CutPrefix(what, "demo:")
	switch {
	case isDemo && !slices.Contains(configs.Pages(), demo):
		return fmt.Errorf("the demo has no page %q, only %s", demo, strings.Join(configs.Pages(), ", "))
	case fileErr == nil || isDemo:
		x, err := f.local(ctx, what, isDemo)
		if err != nil {
			return err
		}
		return f.show(cmd, x)
	case !errors.Is(fileErr, os.ErrNotExist) || strings.ContainsAny(what, `/\`) || filepath.Ext(what) == ".safetensors":
		return fileErr
	}
	return f.remote(cmd, what)
}

// local compresses a page here.
func (f *inspectFlags) local(ctx context.Context, what string, isDemo bool) (*inspected, error) {
	vocabulary, err := studio.Vocabulary()
	if err != nil {
		return nil, err
	}
	known := sidecar.NewModels(nil)
	if f.profile.tokenizer != "" {
		known = sidecar.NewModels([]config.Model{{Match: "*", TokenizerFile: f.profile.tokenizer}})
		if err := known.Load(); err != nil {
			return nil, err
		}
	}
	s := studio.New(studio.Options{Models: known, Words: studio.Words(known.Text, vocabulary)})
	defer s.Close()
	id := what
	if !isDemo {
		blob, err := page.ReadFile(what)
		if err != nil {
			return nil, err
		}
		src, err := s.Open(filepath.Base(what), blob)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		id = src.ID
	}
	profile := map[string]any{"method": f.profile.method}
	if f.profile.method != string(policy.MethodNone) {
		profile["ratio"] = f.profile.ratio
		if f.profile.budget != "" {
			profile["budget"] = f.profile.budget
		}
		if f.profile.fp8 {
			profile["fp8"] = true
		}
	}
	raw, err := json.Marshal(profile)
	if err != nil {
		return nil, err
	}
	x := &inspected{Title: what, Method: f.profile.method}
	if x.Result, err = s.Run(ctx, studio.Request{Source: id, Profile: raw}); err != nil {
		return nil, err
	}
	if x.Tokens, err = s.Tokens(id); err != nil {
		return nil, err
	}
	x.Subtitle = fmt.Sprintf("%d layers, %d KV heads, %d tokens; compressed by %s here, on %s", x.Result.Layers, x.Result.Heads, x.Result.Tokens, x.Method, x.Result.Device)
	if f.html == "" {
		return x, nil
	}
	for _, m := range policy.Methods() {
		if m == policy.MethodNone {
			continue
		}
		raw, err := json.Marshal(map[string]any{"method": m})
		if err != nil {
			return nil, err
		}
		c, err := s.Curve(ctx, studio.CurveRequest{Source: id, Profile: raw, Ratios: []float64{0.75, 0.5, 0.35, 0.25, 0.15}})
		if err != nil {
			return nil, err
		}
		x.Curves = append(x.Curves, curveOfMethod{c, m.Evicts()})
	}
	return x, nil
}

// remote asks a running sidecar for a page or a request.
func (f *inspectFlags) remote(cmd *cobra.Command, id string) error {
	a := adminClient{base: strings.TrimSuffix(f.admin, "/")}
	if f.tokenFile != "" {
		token, err := config.ReadSecret(f.tokenFile)
		if err != nil {
			return err
		}
		a.token = token
	}
	var p struct {
		ID, Tenant, Model, Reason, Profile, Method, Outcome, Error string
		Recorded                                                   bool
	}
	err := a.ask(cmd.Context(), http.MethodGet, "pages/"+url.PathEscape(id), nil, &p)
	var e *adminError
	switch {
	case errors.As(err, &e) && e.status == http.StatusNotFound:
		return f.request(cmd, a, id)
	case err != nil:
		return err
	case !p.Recorded:
		var all map[string]any
		if err := a.ask(cmd.Context(), http.MethodGet, "pages/"+url.PathEscape(id), nil, &all); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "semproxy: page %s was not recorded, so its tokens cannot be shown: the tenant's policy allows it with record: pages, or record: text\n", p.ID)
		return show.Value(cmd.OutOrStdout(), f.out, all)
	}
	var doc struct{ Profiles map[string]map[string]any }
	if err := a.ask(cmd.Context(), http.MethodGet, "policies", nil, &doc); err != nil {
		return err
	}
	x := &inspected{Title: "page " + p.ID + " of " + p.Tenant, Subtitle: p.Reason, Method: p.Method}
	source := "page:" + p.ID
	body := map[string]any{"source": source, "profile": writable(doc.Profiles[p.Profile])}
	if err := a.ask(cmd.Context(), http.MethodPost, "studio/run", body, &x.Result); err != nil {
		return err
	}
	if err := a.ask(cmd.Context(), http.MethodGet, "studio/tokens?source="+url.QueryEscape(source), nil, &x.Tokens); err != nil {
		return err
	}
	return f.show(cmd, x)
}

// writable is a resolved profile in the words that a policy file takes.
func writable(p map[string]any) map[string]any {
	method := policy.Method(fmt.Sprint(p["method"]))
	out := map[string]any{}
	for k, v := range p {
		if k == "store" || k == "assign" || k == "guard" || slices.Contains(method.Ignores(), k) || k == "ratio" && p["threshold"] != nil {
			continue
		}
		out[k] = v
	}
	if !method.Clusters() || p["threshold"] != nil || p["budget"] != string(policy.BudgetEqual) {
		delete(out, "regular")
	}
	return out
}

func (f *inspectFlags) request(cmd *cobra.Command, a adminClient, id string) error {
	var x map[string]any
	if err := a.ask(cmd.Context(), http.MethodGet, "requests/"+url.PathEscape(id)+"/explain", nil, &x); err != nil {
		var e *adminError
		if errors.As(err, &e) && e.status == http.StatusNotFound {
			return fmt.Errorf("%q is no file, and %s remembers neither a page nor a request of that id", id, f.admin)
		}
		return err
	}
	if f.out != "table" {
		return show.Value(cmd.OutOrStdout(), f.out, x)
	}
	lines, _ := x["summary"].([]any)
	fmt.Fprintf(cmd.OutOrStdout(), "request %s\n", id)
	for _, l := range lines {
		fmt.Fprintf(cmd.OutOrStdout(), "  %v\n", l)
	}
	return nil
}

// adminClient asks the admin API.
type adminClient struct{ base, token string }

type adminError struct {
	status        int
	code, message string
}

func (e *adminError) Error() string { return e.message + " (" + e.code + ")" }

func (a adminClient) ask(ctx context.Context, method, path string, body, into any) error {
	var send io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base+"/api/v1/"+path, send)
	if err != nil {
		return err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error struct{ Code, Message string }
		}
		if json.Unmarshal(text, &e) != nil || e.Error.Code == "" {
			return fmt.Errorf("%s answers %d: is that the admin listener of a semproxy of this release?", a.base, resp.StatusCode)
		}
		return &adminError{resp.StatusCode, e.Error.Code, e.Error.Message}
	}
	return json.Unmarshal(text, into)
}

func (f *inspectFlags) show(cmd *cobra.Command, x *inspected) error {
	if f.html != "" {
		text, err := inspectHTML(x)
		if err != nil {
			return err
		}
		if err := show.WriteFile(cmd.Context(), f.html, text); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s\n", f.html)
		if f.out == "table" {
			return nil
		}
	}
	if f.out != "table" {
		return show.Value(cmd.OutOrStdout(), f.out, x.Result)
	}
	v := viewer{w: cmd.OutOrStdout(), colours: colourDepth(cmd.OutOrStdout(), f.color)}
	return v.page(x, f.layer, f.head, f.from, f.count)
}

// inspectHTML is one file with the console's parts and the data inside.
func inspectHTML(x *inspected) ([]byte, error) {
	data, err := json.Marshal(x) // escapes what could end the element
	if err != nil {
		return nil, err
	}
	style, err := console.File("inspect.css")
	if err != nil {
		return nil, err
	}
	script, err := console.File("inspect.js")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<!doctype html>
<html lang="en" data-theme="auto"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>%s</title>
<style>%s</style></head>
<body><main id="main" tabindex="-1"></main><div id="live" class="hidden" role="status"></div>
<script type="application/json" id="data">%s</script>
<script>%s</script></body></html>
`, html.EscapeString(x.Title), style, data, bytes.ReplaceAll(script, []byte("</script"), []byte(`<\/script`)))
	return b.Bytes(), nil
}
