package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport/page"
)

// compressFlags are the flags of "semproxy compress".
type compressFlags struct {
	out, output, policyPath, tenant, tokenizer, report string
	method, budget                                     string
	ratio, maxError                                    float64
	fp8                                                bool
	bits                                               int
	workers                                            int
}

func newCompressCommand() *cobra.Command {
	var f compressFlags
	cmd := &cobra.Command{
		Use:   "compress FILE",
		Short: "Compress one page from a file and report what was lost",
		Long: `Read a page (safetensors, format semproxy.page.v1), compress it as the service would, write the cores
(semproxy.cores.v1) and report what was kept and lost. The service is not needed.

The way to compress comes from --method, --ratio, --budget, --fp8 and --bits, or from --policy and --tenant.`,
		Example: `  semproxy compress kjv.page.safetensors -o kjv.cores.safetensors --ratio 0.25
  semproxy compress page.safetensors --policy tenants.yaml --tenant acme --report json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	cmd.Flags().StringVar(&f.out, "out", "", "file for the cores (default FILE with .cores.safetensors)")
	show.FileFlag(cmd, &f.output, "the file for the cores")
	cmd.Flags().StringVar(&f.policyPath, "policy", "", "policy file or folder, instead of --method, --ratio, --budget, --fp8, --bits and --max-error")
	cmd.Flags().StringVar(&f.tenant, "tenant", "", "tenant whose rules apply, with --policy")
	cmd.Flags().StringVar(&f.tokenizer, "tokenizer", "", "tokenizer.json of the model, for a page without a boundary tensor")
	cmd.Flags().StringVar(&f.report, "report", "text", "text, json or yaml; -o says the same")
	cmd.Flags().StringVar(&f.method, "method", "weighted", "one of "+methodWords())
	cmd.Flags().StringVar(&f.budget, "budget", "", "adaptive or equal (default adaptive; paper: equal), for methods that cluster")
	cmd.Flags().Float64Var(&f.ratio, "ratio", 0.5, "cores kept per token, in (0, 1]")
	cmd.Flags().BoolVar(&f.fp8, "fp8", false, "cores in 8 bits (E4M3) with a scale per head")
	cmd.Flags().IntVar(&f.bits, "bits", 16, "bits of each key and value: 8 or 4 are codes with a scale per token")
	cmd.Flags().Float64Var(&f.maxError, "max-error", 0, "keep more until the attention error is at most this; 0: no guard")
	cmd.Flags().IntVar(&f.workers, "workers", 0, "goroutines; 0: one per core")
	show.Complete(cmd, "method", methodNames())
	show.Complete(cmd, "budget", []string{"adaptive", "layered", "equal"})
	show.Complete(cmd, "report", []string{"text", "json", "yaml"})
	cmd.MarkFlagsRequiredTogether("policy", "tenant")
	for _, name := range []string{"method", "ratio", "budget", "fp8", "bits", "max-error"} {
		cmd.MarkFlagsMutuallyExclusive("policy", name)
	}
	return cmd
}

func (f *compressFlags) run(cmd *cobra.Command, file string) error {
	switch f.output {
	case show.Table:
	case show.JSON, show.YAML:
		f.report = f.output
	default:
		f.out = f.output
	}
	if !slices.Contains([]string{"text", "json", "yaml"}, f.report) {
		return exit.UsageError{Err: fmt.Errorf("--report must be text, json or yaml, got %q", f.report)}
	}
	set, err := f.rules()
	if err != nil {
		return err
	}
	blob, err := page.ReadFile(file)
	if err != nil {
		return err
	}
	known := sidecar.NewModels(nil)
	if f.tokenizer != "" {
		known = sidecar.NewModels([]config.Model{{Match: "*", TokenizerFile: f.tokenizer}})
		if err := known.Load(); err != nil {
			return err
		}
	}
	c := compress.New(f.workers)
	defer c.Close()
	p, err := pipeline.New(pipeline.Config{
		Policy: func() *policy.Set { return set }, Compressor: c, Models: known, Progress: progress(cmd.ErrOrStderr(), f.report),
	})
	if err != nil {
		return err
	}
	out, err := p.Compress(cmd.Context(), f.tenant, blob)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", file, pipeline.CodeOf(err), err)
	}
	defer out.Release()
	name := f.out
	if name == "" {
		name = strings.TrimSuffix(strings.TrimSuffix(file, ".safetensors"), ".page") + ".cores.safetensors"
	}
	if err := show.WriteFile(cmd.Context(), name, out.Body); err != nil {
		return err
	}
	switch f.report {
	case "json":
		return json.NewEncoder(cmd.OutOrStdout()).Encode(&out.Report)
	case show.YAML:
		return show.Value(cmd.OutOrStdout(), show.YAML, &out.Report)
	}
	return writeReport(cmd.OutOrStdout(), &out.Report, name)
}

// rules compiles the policy of the flags, so that they are checked as a policy is.
func (f *compressFlags) rules() (*policy.Set, error) {
	if f.policyPath != "" {
		w, err := watch.New(f.policyPath, watch.Options{})
		if err != nil {
			return nil, err
		}
		return w.Current(), nil
	}
	f.tenant = "file"
	profile := map[string]any{"method": f.method}
	if f.fp8 {
		profile["fp8"] = true
	}
	if f.bits != 16 {
		profile["bits"] = f.bits
	}
	if f.method != string(policy.MethodNone) {
		profile["ratio"] = f.ratio
		if f.budget != "" {
			profile["budget"] = f.budget
		}
		if f.maxError > 0 {
			profile["guard"] = map[string]any{"maxAttentionError": f.maxError}
		}
	}
	doc, err := json.Marshal(map[string]any{ // JSON is YAML
		"apiVersion": policy.APIVersion,
		"profiles":   map[string]any{"flags": profile},
		"tenants":    map[string]any{f.tenant: map[string]any{"rules": []any{map[string]any{"profile": "flags"}}}},
	})
	if err != nil {
		return nil, err
	}
	return policy.Compile(policy.Source{Name: "flags", Data: doc})
}

// methodWords lists the methods of a policy.
func methodWords() string {
	var words []string
	for _, m := range policy.Methods() {
		words = append(words, string(m))
	}
	return strings.Join(words, ", ")
}

// progress is a bar on a terminal's standard error; it starts again when the guard relaxes.
func progress(w io.Writer, report string) func(done, total int) {
	if f, ok := w.(*os.File); !ok || report != "text" || !show.IsTerminal(f) {
		return nil
	}
	var bar *progressbar.ProgressBar
	return func(done, total int) {
		if bar == nil || done == 1 {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("compress"),
				progressbar.OptionClearOnFinish())
		}
		_ = bar.Set(done)
	}
}

func writeReport(w io.Writer, r *pipeline.Report, file string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("page", "%s of %s: %d layers, %d KV heads, %d tokens", r.Sequence, r.Model, r.Layers, r.Heads, r.Tokens)
	row("decision", "%s by %s (profile %s)", r.Outcome, r.Rule, r.Policy)
	row("cores", "%d of %d per head (ratio %.4f, asked %.4f)", r.Cores, r.Tokens, r.Ratio, r.Asked)
	if r.Dropped > 0 {
		row("dropped", "%.1f tokens per head, that no core stands for", r.Dropped)
	}
	row("bytes", "%s -> %s (%.1f %%)", show.Size(r.BytesIn), show.Size(r.BytesOut), 100*float64(r.BytesOut)/float64(r.BytesIn))
	row("key similarity", "%.4f", r.KeySimilarity)
	if r.Measured {
		row("attention error", "%.4f (worst %.4f at layer/head %s)", r.AttentionError, r.WorstError, r.WorstHead)
	} else {
		row("attention error", "not measured: the page carries no queries; the values' error is %.4f", r.ValueError)
	}
	row("guard", "%s", r.Guard)
	row("delimiters", "%s", r.Boundary)
	row("device", "%s", r.Device)
	row("time", "%s, of which compress %s and measure %s", show.Duration(r.Elapsed), show.Duration(r.Stages.Compress-r.Stages.Measure), show.Duration(r.Stages.Measure))
	row("written", "%s", file)
	return t.Flush()
}
