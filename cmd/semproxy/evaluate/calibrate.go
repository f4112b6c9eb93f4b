package evaluate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/eval"
)

// calibrateFlags are the flags of "semproxy calibrate".
type calibrateFlags struct {
	evalFlags
	ratio float64
	count int
	loss  bool
	seed  uint64
}

// repeatPrompt asks a model to say a text again.
const repeatPrompt = "\n\nRepeat the previous context exactly.\n"

// NewCalibrateCommand is "semproxy calibrate".
func NewCalibrateCommand() *cobra.Command {
	f := calibrateFlags{}
	cmd := &cobra.Command{
		Use:   "calibrate [TEXT...]",
		Short: "Measure a model for a policy: which KV heads need their tokens, or with --loss how many facts are lost",
		Long: `Run a Llama-style model (as "semproxy eval") on a few texts, each said again after itself, and see how much every token is
looked at then. Few heads look things up, the same ones in any text. The weights are those under which the method weighted leaves
each head the cores that it needs by that measure; they are printed as headWeights of a profile. Compare before you use them.

With --loss: put facts into each text, compress it at many ratios, and ask for the facts. What comes out is the curve from the
error that a sidecar measures on every page to the share of facts that your model loses; it is printed as lossCurve of a
profile's guard, whose maxFactsLost is then about your model.

Texts are plain files, JSONL, folders of them, or - for standard input; without any, those in the program. A few hundred
tokens of three or four texts are enough for heads; --loss wants a dozen texts.`,
		Example: `  semproxy calibrate --model ~/models/smollm2 >> weights.yaml
  semproxy calibrate --model ~/models/llama-3.2-1b mytexts/ --out weights.yaml
  semproxy calibrate --loss --model ~/models/smollm2 --out curve.yaml`,
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", evalModel, "folder with config.json and model.safetensors (one file or shards)")
	fl.StringVar(&f.tokenizer, "tokenizer", "", "tokenizer.json (default: the model's)")
	fl.BoolVar(&f.loss, "loss", false, "measure the loss curve of a guard")
	fl.IntVar(&f.count, "texts", 4, "how many pieces of text; 12 with --loss")
	fl.IntVar(&f.context, "tokens", 512, "tokens of each; the model reads twice as many. 1000 with --loss")
	fl.Uint64Var(&f.seed, "seed", 1, "with --loss: which facts are put where")
	fl.Float64Var(&f.ratio, "ratio", 0.125, "tokens kept, in (0, 1], at which heads compete")
	fl.StringVar(&f.out, "out", "", "file to write; empty: print")
	return cmd
}

func (f *calibrateFlags) run(cmd *cobra.Command, args []string) error {
	if !(f.ratio > 0 && f.ratio <= 1) || f.count < 1 {
		return exit.UsageError{Err: errors.New("--ratio must be in (0, 1] and --texts at least 1")}
	}
	start := time.Now()
	f.paths, f.text = args, evalText
	f.follow, f.shrink = leastFollow, !cmd.Flags().Changed("tokens")
	if f.loss {
		return f.runLoss(cmd, start)
	}
	f.windows = f.count
	fmt.Fprintf(cmd.ErrOrStderr(), "semproxy calibrate: %s on %s; loading\n", f.model, f.about())
	m, closeModel, err := openModel(f.model)
	if err != nil {
		return err
	}
	defer closeModel()
	c := eval.Calibration{Ratio: f.ratio}
	if c.Ask, err = f.prompt(); err != nil {
		return err
	}
	if most := m.Config.Context; most > 0 && 2*f.context+len(c.Ask) > most {
		if !f.shrink {
			return fmt.Errorf("--tokens %d twice and the request to repeat them are more than the model's context of %d tokens", f.context, most)
		}
		f.context = max((most-len(c.Ask))/2, 1)
	}
	cases, boundary, err := f.load(m)
	if err != nil {
		return err
	}
	if edge := compress.Weighted(); f.ratio*float64(f.context) < float64(2*(edge.Sinks+edge.Recent)) {
		return fmt.Errorf("%v of %d tokens are hardly more than the %d that every head keeps: give longer texts, or a higher --ratio",
			f.ratio, f.context, edge.Sinks+edge.Recent)
	}
	c.Boundary = boundary
	for _, text := range cases {
		c.Texts = append(c.Texts, text.Context)
	}
	c.Progress = func(done, total int) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d texts, %s\n", done, total, show.Duration(time.Since(start)))
	}
	weights, err := eval.HeadWeights(cmd.Context(), m, &c)
	if err != nil {
		return err
	}
	return f.write(cmd, func(w io.Writer) error { return f.print(w, weights, len(cases)) })
}

// write prints, or writes the file that was asked for.
func (f *calibrateFlags) write(cmd *cobra.Command, text func(io.Writer) error) error {
	if f.out == "" {
		return text(cmd.OutOrStdout())
	}
	var b strings.Builder
	if err := text(&b); err != nil {
		return err
	}
	return os.WriteFile(f.out, []byte(b.String()), 0o644) //nolint:gosec // as any policy
}

// prompt is the request to repeat, in tokens; nothing for a model whose tokenizer cannot be read.
func (f *calibrateFlags) prompt() ([]int32, error) {
	path, err := f.tokenizerPath()
	if err != nil || path == "" {
		return nil, err
	}
	encoder, err := loadEncoder(path)
	if err != nil {
		return nil, err
	}
	return encoder.Encode(repeatPrompt), nil
}

// print writes a key of a profile.
func (f *calibrateFlags) print(w io.Writer, weights [][]float64, texts int) error {
	_, err := fmt.Fprintf(w, "# %s, %d layers of %d KV heads: semproxy calibrate on %s of %d tokens, %v kept\nheadWeights:\n",
		filepath.Base(f.model), len(weights), len(weights[0]), show.Plural(texts, "text"), f.context, f.ratio)
	for _, heads := range weights {
		words := make([]string, len(heads))
		for i, x := range heads {
			words[i] = fmt.Sprintf("%.3g", x)
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "  - [%s]\n", strings.Join(words, ", "))
		}
	}
	return err
}
