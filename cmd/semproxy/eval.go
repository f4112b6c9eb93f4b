package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/compress/eval"
)

// evalFlags are the flags of "semproxy eval".
type evalFlags struct {
	model, tokenizer, text, recall, out string
	methods                             []string
	ratios                              []float64
	cases, context, follow, windows     int
	workers                             int
	proportional                        bool
}

// The data of a clone, relative to its root.
const (
	evalModel     = "configs/eval"
	evalTokenizer = "configs/demo/tokenizer.json"
)

// evalMethods is what the table compares by default.
var evalMethods = []string{"weighted", "weighted+fp8", "semantic", "equal", "hybrid", "paper", "window", "snapkv", "h2o", "keydiff", "keynorm", "random", "uniform"}

func newEvalCommand() *cobra.Command {
	f := evalFlags{}
	cmd := &cobra.Command{
		Use:   "eval",
		Short: "Measure what compression costs a model: perplexity, recall, attention error, time",
		Long: `Run a Llama-style model (LlamaForCausalLM, Mistral, Qwen2, Qwen3; config.json and safetensors) on the CPU: a context
is prefilled, its cache is compressed, and the text that follows is forced through the model on what is left. Every
method is compared with the full cache at every ratio.

Without flags it runs, from the root of a clone, the small model and the public-domain texts in configs/eval.

A method is a name, with parameters after colons and modifiers after plus signs: semantic:exact=0.5+fp8.
Modifiers are fp8 (keys and values in 8 bits) and nobias (no proportional attention).

A text file has one JSON object a line: {"source": "...", "text": "..."}, or "ids" instead of "text" for a model whose
tokenizer cannot be read here. A recall file has "context" and "questions" as token ids and "answers": [{"at": index of
the first of 4 digit tokens in questions}].`,
		Example: `  semproxy eval
  semproxy eval --cases 8 --methods semantic,window --ratios 0.25
  semproxy eval --model ~/models/llama-3.2-1b --text texts.jsonl --recall "" --context 4096 --out results`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", evalModel, "folder with config.json and model.safetensors (one file or shards)")
	fl.StringVar(&f.tokenizer, "tokenizer", "", "tokenizer.json (default: the model's, else "+evalTokenizer+" for the default model)")
	fl.StringVar(&f.text, "text", filepath.Join(evalModel, "text.jsonl"), "texts for perplexity; empty: none")
	fl.StringVar(&f.recall, "recall", filepath.Join(evalModel, "recall.jsonl"), "cases for recall; empty: none")
	fl.StringSliceVar(&f.methods, "methods", evalMethods, "methods to compare; known are "+strings.Join(eval.Names(), ", "))
	fl.Float64SliceVar(&f.ratios, "ratios", []float64{0.5, 0.25, 0.125}, "tokens kept, in (0, 1]")
	fl.IntVar(&f.cases, "cases", 0, "at most so many windows and so many recall cases, for a quick look; 0: all")
	fl.IntVar(&f.context, "context", 864, "tokens of a perplexity window that are compressed")
	fl.IntVar(&f.follow, "follow", 128, "tokens after them that are forced through the model")
	fl.IntVar(&f.windows, "windows", 40, "at most so many perplexity windows")
	fl.IntVar(&f.workers, "workers", 0, "cases at a time; 0: one per core for a small model, else one")
	fl.BoolVar(&f.proportional, "proportional", true, "proportional attention: add each core's bias to its logits")
	fl.StringVarP(&f.out, "out", "o", "", "folder for results.json and results.svg; empty: print only")
	return cmd
}

// evalResult is results.json.
type evalResult struct {
	Model      string       `json:"model"`
	Parameters int          `json:"parameters"`
	Context    int          `json:"context"`
	Follow     int          `json:"follow"`
	Report     *eval.Report `json:"report"`
}

func (f *evalFlags) run(cmd *cobra.Command) error {
	start := time.Now()
	m, closeModel, err := openModel(f.model)
	if err != nil {
		return err
	}
	defer closeModel()
	cases, boundary, err := f.load(m)
	if err != nil {
		return err
	}
	plan := eval.Plan{Ratios: f.ratios, Workers: f.workers, Boundary: boundary, Progress: evalProgress(cmd.ErrOrStderr(), start)}
	for _, method := range f.methods {
		if !f.proportional {
			method += "+nobias"
		}
		plan.Methods = append(plan.Methods, method)
	}
	report, err := eval.Run(cmd.Context(), m, cases, plan)
	if err != nil {
		return err
	}
	if err := report.WriteTable(cmd.OutOrStdout()); err != nil || f.out == "" {
		return err
	}
	return f.write(cmd, &evalResult{Model: filepath.Base(f.model), Parameters: m.Parameters(), Context: f.context, Follow: f.follow, Report: report})
}

// evalProgress writes one line that overwrites itself on a terminal, else a line every tenth of the cases.
func evalProgress(w io.Writer, start time.Time) func(done, total int) {
	file, ok := w.(*os.File)
	terminal := ok && isTerminal(file)
	return func(done, total int) {
		switch {
		case terminal:
			fmt.Fprintf(w, "\r%d of %d cases, %s ", done, total, short(time.Since(start)))
			if done == total {
				fmt.Fprintln(w)
			}
		case done == total || done%max(total/10, 1) == 0:
			fmt.Fprintf(w, "%d of %d cases, %s\n", done, total, short(time.Since(start)))
		}
	}
}

func (f *evalFlags) write(cmd *cobra.Command, r *evalResult) error {
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(cmd.Context(), filepath.Join(f.out, "results.json"), append(data, '\n')); err != nil {
		return err
	}
	svg, err := os.Create(filepath.Join(f.out, "results.svg"))
	if err != nil {
		return err
	}
	if err := r.Report.WriteSVG(svg); err != nil {
		_ = svg.Close()
		return fmt.Errorf("write %s: %w", svg.Name(), err)
	}
	if err := svg.Close(); err != nil {
		return fmt.Errorf("write %s: %w", svg.Name(), err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s and %s\n", filepath.Join(f.out, "results.json"), svg.Name())
	return nil
}
