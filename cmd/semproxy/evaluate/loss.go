package evaluate

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/eval"
)

// factTokens is room for the facts that are put into a text, and for the questions about them.
const factTokens = 600

// runLoss is "semproxy calibrate --loss".
func (f *calibrateFlags) runLoss(cmd *cobra.Command, start time.Time) error {
	if cmd.Flags().Changed("ratio") {
		return exit.UsageError{Err: errors.New("--loss measures at many ratios: leave --ratio out")}
	}
	if !cmd.Flags().Changed("texts") {
		f.count = 12
	}
	if !cmd.Flags().Changed("tokens") {
		f.context = 1000
	}
	f.windows = f.count
	fmt.Fprintf(cmd.ErrOrStderr(), "semproxy calibrate --loss: %s on %s; loading\n", f.model, f.about())
	m, closeModel, err := openModel(f.model)
	if err != nil {
		return err
	}
	defer closeModel()
	cases, boundary, err := f.factCases(m)
	if err != nil {
		return err
	}
	asked := 0
	for i := range cases {
		asked += len(cases[i].Answers)
	}
	plan := eval.LossPlan{Boundary: boundary, Progress: func(done, total, missing int) {
		took, left := time.Since(start), ""
		if done < total {
			left = ", about " + show.Duration(took*time.Duration(total-done)/time.Duration(done)) + " left"
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d texts in %s%s; %d answers are wrong with all tokens\n", done, total, show.Duration(took), left, missing)
	}}
	losses, err := eval.Losses(cmd.Context(), m, cases, &plan)
	if err != nil {
		return err
	}
	curve, err := eval.LossCurve(losses, asked)
	if err != nil {
		return err
	}
	return f.write(cmd, func(w io.Writer) error { return f.printLoss(w, losses, curve, len(cases), asked) })
}

// factCases are texts with facts in them; for the model in the program its own cases, since it knows nothing else.
func (f *calibrateFlags) factCases(m *eval.Model) ([]eval.Case, func([]int32) []byte, error) {
	if f.model == evalModel && len(f.paths) == 0 {
		f.text, f.recall, f.cases = "", evalRecall, f.count
		return f.load(m)
	}
	if most := m.Config.Context; most > 0 && f.context+factTokens > most {
		if !f.shrink {
			return nil, nil, fmt.Errorf("--tokens %d and %d for facts and questions are more than the model's context of %d tokens", f.context, factTokens, most)
		}
		f.context = max(most-factTokens, leastContext)
	}
	windows, boundary, err := f.load(m)
	if err != nil {
		return nil, nil, err
	}
	path, err := f.tokenizerPath()
	if err != nil {
		return nil, nil, err
	}
	encoder, err := loadEncoder(path)
	if err != nil {
		return nil, nil, err
	}
	return eval.FactCases(windows, encoder.Encode, boundary, f.seed), boundary, nil
}

// printLoss writes a key of a guard, after what was measured.
func (f *calibrateFlags) printLoss(w io.Writer, losses []eval.Loss, curve [][2]float64, texts, asked int) error {
	p := printer{w: w}
	p.line("# %s: semproxy calibrate --loss on %s with %d facts; a key of a profile's guard.", filepath.Base(f.model), show.Plural(texts, "text"), asked)
	p.line("# Tokens kept, lookup error, facts lost of those that all tokens give:")
	type key struct {
		budget compress.Budget
		ratio  float64
	}
	sums := map[key]*[4]float64{} // lookup, pages, lost, asked
	var order []key
	for _, l := range losses {
		k := key{l.Budget, l.Ratio}
		if sums[k] == nil {
			sums[k] = &[4]float64{}
			order = append(order, k)
		}
		s := sums[k]
		s[0], s[1], s[2], s[3] = s[0]+l.Lookup, s[1]+1, s[2]+float64(l.Lost), s[3]+float64(l.Asked)
	}
	for _, k := range order {
		if s := sums[k]; s[3] > 0 {
			p.line("#   budget %-8v %5.1f %%  %.3f  %5.1f %% (%.0f of %.0f)", k.budget, 100*k.ratio, s[0]/s[1], 100*s[2]/s[3], s[2], s[3])
		}
	}
	p.line("lossCurve:")
	for _, at := range curve {
		p.line("  - [%.4g, %.3g]", at[0], at[1])
	}
	return p.err
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
