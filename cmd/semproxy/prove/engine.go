package prove

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semproxy/semproxy/cmd/semproxy/engineproof"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// engineFlags are the flags of "semproxy prove" with an engine.
type engineFlags struct {
	url, prompts, model, html, json string
	keys                            []string
	maxTokens, attempts             int
	noSalt                          bool
	settle, timeout                 time.Duration
	limits                          engineproof.Limits
}

func (f *engineFlags) register(fl *pflag.FlagSet) {
	fl.StringVar(&f.url, "engine", "", "ask own prompts of the engine behind semproxy's proxy at this URL")
	fl.StringVar(&f.prompts, "prompts", "", "with --engine: file of JSON lines, - for standard input")
	fl.StringArrayVar(&f.keys, "key", nil, "with --engine: TENANT=FILE with the tenant's API key; again for each tenant (default: ask without a key)")
	fl.StringVar(&f.model, "engine-model", "", "with --engine: model to ask (default the engine's first)")
	fl.IntVar(&f.maxTokens, "max-tokens", 64, "with --engine: tokens of an answer, where its prompt does not say")
	fl.Float64Var(&f.limits.Loss, "max-loss", 0.02, "with --engine: task score that may be lost, absolute, where right answers are given")
	fl.Float64Var(&f.limits.Changed, "max-changed", 0.1, "with --engine: share of answers that may change, where no right answers are given")
	fl.IntVar(&f.limits.Least, "min-prompts", 20, "with --engine: prompts on cores that a verdict needs")
	fl.IntVar(&f.attempts, "attempts", 4, "with --engine: attempts of a request that fails")
	fl.DurationVar(&f.settle, "settle", time.Second, "with --engine: time for an adapter to store what it has computed")
	fl.DurationVar(&f.timeout, "request-timeout", 10*time.Minute, "with --engine: for one answer")
	fl.BoolVar(&f.noSalt, "no-cache-salt", false, "with --engine: send no cache_salt, for an engine that refuses it")
	fl.StringVar(&f.html, "html", "", "with --engine: also write the report as a page, with the answers that changed")
	fl.StringVar(&f.json, "answers", "", "with --engine: also write everything as JSON, all answers included")
}

func (f *engineFlags) check() (*url.URL, error) {
	u, err := url.Parse(f.url)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, errors.New("--engine must be an http or https URL")
	case f.prompts == "":
		return nil, errors.New("--engine needs --prompts")
	case f.maxTokens < 1 || f.attempts < 1 || f.limits.Least < 1:
		return nil, errors.New("--max-tokens, --attempts and --min-prompts must be at least 1")
	case !(f.limits.Loss >= 0 && f.limits.Loss <= 1) || !(f.limits.Changed >= 0 && f.limits.Changed <= 1): // NaN too
		return nil, errors.New("--max-loss and --max-changed must be in [0, 1]")
	case f.settle < 0 || f.timeout <= 0:
		return nil, errors.New("--settle must not be negative, and --request-timeout must be positive")
	}
	return u, nil
}

func (f *engineFlags) run(cmd *cobra.Command, output string) error {
	engine, err := f.check()
	if err != nil {
		return err
	}
	prompts, err := f.read(cmd.InOrStdin())
	if err != nil {
		return fmt.Errorf("--prompts %s: %w", f.prompts, err)
	}
	tenants, err := f.tenants()
	if err != nil {
		return err
	}
	report, err := engineproof.Run(cmd.Context(), engineproof.Config{
		Engine: engine, Tenants: tenants, Model: f.model, Prompts: prompts, MaxTokens: f.maxTokens, Salt: !f.noSalt, Attempts: f.attempts,
		Pause: time.Second, Settle: f.settle, Timeout: f.timeout, Transport: http.DefaultTransport, Limits: f.limits, Progress: proveProgress(cmd.ErrOrStderr()),
	})
	if err != nil {
		return err
	}
	if err := show.As(cmd.OutOrStdout(), output, report, report.Markdown); err != nil {
		return err
	}
	if err := f.files(report); err != nil {
		return err
	}
	var faults []error
	for i := range report.Results {
		switch x := &report.Results[i]; x.Verdict {
		case engineproof.Fails:
			faults = append(faults, fmt.Errorf("prove.fails: %s, %s: %s", x.Tenant, x.Profile, x.Why))
		case engineproof.NoAnswer:
			faults = append(faults, fmt.Errorf("prove.no_answer: %s, %s: %s", x.Tenant, x.Profile, x.Why))
		}
	}
	return errors.Join(faults...)
}

func (f *engineFlags) read(stdin io.Reader) ([]engineproof.Prompt, error) {
	if f.prompts == "-" {
		return engineproof.ReadPrompts(stdin)
	}
	file, err := os.Open(f.prompts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return engineproof.ReadPrompts(file)
}

// tenants reads the keys; one without a name and a key where none is given.
func (f *engineFlags) tenants() ([]engineproof.Tenant, error) {
	if len(f.keys) == 0 {
		return []engineproof.Tenant{{Name: "anonymous"}}, nil
	}
	var out []engineproof.Tenant
	for _, one := range f.keys {
		name, path, ok := strings.Cut(one, "=")
		if !ok || name == "" || path == "" {
			return nil, errors.New("--key must be TENANT=FILE")
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--key %s: %w", name, err)
		}
		key := strings.TrimSpace(string(text))
		if key == "" || strings.ContainsAny(key, " \t\r\n") {
			return nil, fmt.Errorf("--key %s: %s must hold one key", name, path)
		}
		out = append(out, engineproof.Tenant{Name: name, Key: key})
	}
	return out, nil
}

// files writes what was asked for beside the table.
func (f *engineFlags) files(report *engineproof.Report) error {
	for _, one := range []struct {
		path  string
		write func(io.Writer) error
	}{{f.html, report.HTML}, {f.json, func(w io.Writer) error { return json.NewEncoder(w).Encode(report) }}} {
		if one.path == "" {
			continue
		}
		file, err := os.OpenFile(one.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // answers may be confidential
		if err != nil {
			return err
		}
		if err := errors.Join(one.write(file), file.Close()); err != nil {
			return fmt.Errorf("%s: %w", one.path, err)
		}
	}
	return nil
}

// proveProgress shows a bar on a terminal, and a line per prompt elsewhere.
func proveProgress(w io.Writer) func(done, total int, what string) {
	file, ok := w.(*os.File)
	if !ok || !show.IsTerminal(file) {
		return func(done, total int, what string) {
			if what != "" {
				_, _ = fmt.Fprintf(w, "%d/%d %s\n", done+1, total, what)
			}
		}
	}
	var bar *progressbar.ProgressBar
	return func(done, total int, what string) {
		if bar == nil {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionShowCount(), progressbar.OptionClearOnFinish())
		}
		bar.Describe(what)
		_ = bar.Set(done)
	}
}
