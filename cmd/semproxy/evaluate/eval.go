// Package evaluate is the commands "semproxy eval" and "semproxy calibrate": what compression costs a model, on the texts of a person.
package evaluate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/eval"
)

// evalFlags are the flags of "semproxy eval".
type evalFlags struct {
	model, tokenizer, text, recall, out, output string
	methods                                     []string
	ratios                                      []float64
	cases, context, follow, windows             int
	workers                                     int
	proportional                                bool

	paths  []string // of the texts; empty: those of --text
	mine   bool     // the texts are the caller's
	shrink bool     // the context may become shorter
	notes  []string // what was changed, for a person
}

// The defaults, which are in the program: the names are those of a clone.
const (
	evalModel     = "configs/eval"
	evalText      = "configs/eval/text.jsonl"
	evalRecall    = "configs/eval/recall.jsonl"
	evalTokenizer = "configs/demo/tokenizer.json"
)

// evalMethods is what the table compares by default.
var evalMethods = []string{"weighted", "weighted+fp8", "semantic", "equal", "hybrid", "paper", "window", "snapkv", "h2o", "keydiff", "keynorm", "random", "uniform"}

// NewCommand is "semproxy eval".
func NewCommand() *cobra.Command {
	f := evalFlags{}
	cmd := &cobra.Command{
		Use:   "eval [TEXT...]",
		Short: "Measure what compression costs a model: perplexity, recall, attention error, time",
		Long: `Run a Llama-style model (LlamaForCausalLM, Mistral, Qwen2, Qwen3; config.json and safetensors) on the CPU: a context
is prefilled, its cache is compressed, and the text that follows is forced through the model on what is left. Every
method is compared with the full cache at every ratio.

Without arguments it runs a small model and public-domain texts that are in the program. Texts of your own are plain files (.txt, .md
and so on), JSONL, folders of them, or - for standard input; with --model they say what compression costs your model on them. The
context shrinks to what the longest text has.

A method is a name, with parameters after colons and modifiers after plus signs: semantic:exact=0.5+fp8.
Modifiers are fp8 (keys and values in 8 bits), int4 and int8 (the codes of a policy's bits), nobias (no proportional
attention) and bylength (chunks as if the text had no delimiters).

A JSONL file has one JSON object a line: {"source": "...", "text": "..."}, or "ids" instead of "text" for a model whose
tokenizer cannot be read here. A recall file has "context" and "questions" as token ids and "answers": [{"at": index of
the first of 4 digit tokens in questions}].`,
		Example: `  semproxy eval
  semproxy eval --model ~/models/smollm2 mytext.txt notes.md --out report
  semproxy eval --cases 8 --methods semantic,window --ratios 0.25
  semproxy eval --model ~/models/llama-3.2-1b --text texts.jsonl --recall "" --context 4096 --out results`,
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", evalModel, "folder with config.json and model.safetensors (one file or shards)")
	fl.StringVar(&f.tokenizer, "tokenizer", "", "tokenizer.json (default: the model's, else "+evalTokenizer+" for the default model)")
	fl.StringVar(&f.text, "text", evalText, "text for perplexity, as an argument; empty: none")
	fl.StringVar(&f.recall, "recall", evalRecall, "cases for recall, by default only with the default model and texts; empty: none")
	fl.StringSliceVar(&f.methods, "methods", evalMethods, "methods to compare; known are "+strings.Join(eval.Names(), ", "))
	fl.Float64SliceVar(&f.ratios, "ratios", []float64{0.5, 0.25, 0.125}, "tokens kept, in (0, 1]")
	fl.IntVar(&f.cases, "cases", 0, "at most so many windows and so many recall cases, for a quick look; 0: all")
	fl.IntVar(&f.context, "context", 864, "tokens of a perplexity window that are compressed")
	fl.IntVar(&f.follow, "follow", 128, "tokens after them that are forced through the model")
	fl.IntVar(&f.windows, "windows", 40, "at most so many perplexity windows")
	fl.IntVar(&f.workers, "workers", 0, "cases at a time; 0: one per core for a small model, else one")
	fl.BoolVar(&f.proportional, "proportional", true, "proportional attention: add each core's bias to its logits")
	fl.StringVar(&f.out, "out", "", "folder for report.html, results.json and results.svg; empty: print only")
	show.FileFlag(cmd, &f.output, "the folder for the files")
	show.Complete(cmd, "methods", eval.Names())
	return cmd
}

// evalResult is results.json.
type evalResult struct {
	Model      string       `json:"model"`
	Parameters int          `json:"parameters"`
	Context    int          `json:"context"`
	Follow     int          `json:"follow"`
	Texts      string       `json:"texts"`
	Verdict    []string     `json:"verdict"` // in words
	Notes      []string     `json:"notes"`
	Report     *eval.Report `json:"report"`
}

func (f *evalFlags) run(cmd *cobra.Command, args []string) error {
	start := time.Now()
	if err := f.choose(cmd, args); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "semproxy eval: %s on %s; loading\n", f.model, f.about())
	m, closeModel, err := openModel(f.model)
	if err != nil {
		return err
	}
	defer closeModel()
	cases, boundary, err := f.load(m)
	if err != nil {
		return err
	}
	plan := eval.Plan{Ratios: f.ratios, Workers: f.workers, Boundary: boundary, Methods: f.specs()}
	f.progress(cmd.ErrOrStderr(), &plan, len(cases), start)
	report, err := eval.Run(cmd.Context(), m, cases, plan)
	if err != nil {
		return err
	}
	for _, note := range f.notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "semproxy eval:", note)
	}
	r := &evalResult{
		Model: filepath.Base(f.model), Parameters: m.Parameters(), Context: f.context, Follow: f.follow, Texts: f.about(),
		Verdict: evalVerdict(report, f.mine), Notes: f.notes, Report: report,
	}
	if err := show.As(cmd.OutOrStdout(), f.output, r, r.table); err != nil || f.out == "" {
		return err
	}
	return f.write(cmd, r)
}

// table is the result for a person.
func (r *evalResult) table(w io.Writer) error {
	err := r.Report.WriteTable(w)
	for _, text := range r.Verdict {
		_, wrote := fmt.Fprintln(w, "\n"+text)
		err = errors.Join(err, wrote)
	}
	return err
}

func (f *evalFlags) write(cmd *cobra.Command, r *evalResult) error {
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := show.WriteFile(cmd.Context(), filepath.Join(f.out, "results.json"), append(data, '\n')); err != nil {
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
	page := filepath.Join(f.out, "report.html")
	text, err := evalHTML(r)
	if err != nil {
		return err
	}
	if err := show.WriteFile(cmd.Context(), page, text); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "wrote %s, %s and %s\n", page, filepath.Join(f.out, "results.json"), svg.Name())
	return nil
}
