package eval

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what was measured. NaN does not occur: what no case measures is nil.
type Report struct {
	Windows     int   `json:"perplexity_windows"`
	Predictions int   `json:"perplexity_tokens"`
	RecallCases int   `json:"recall_cases"`
	Answers     int   `json:"recall_answers"`
	Rows        []Row `json:"rows"`
}

// Row is one method at one ratio, over all cases.
type Row struct {
	Method     string   `json:"method"`
	Ratio      float64  `json:"ratio"`            // asked for
	Kept       float64  `json:"tokens_kept"`      // cores / tokens, mean
	Bytes      float64  `json:"bytes_kept"`       // with biases and scales, mean
	Perplexity *float64 `json:"perplexity"`       // over all predictions
	Relative   *float64 `json:"perplexity_ratio"` // to the full cache
	Deviation  *float64 `json:"perplexity_ratio_stderr"`
	Recall     *float64 `json:"recall"`
	Attention  float64  `json:"attention_error"` // mean over cases, layers and query heads
	Millis     float64  `json:"compress_ms"`     // median over cases, on one core
}

func needsMass(spec string) bool { return strings.HasPrefix(spec, "h2o") }

// summarize turns cases into rows. all is [case][row].
func summarize(plan *Plan, cases []Case, all [][]measure) *Report {
	rep := &Report{}
	for i := range cases {
		if len(cases[i].Answers) == 0 {
			rep.Windows++
		} else {
			rep.RecallCases++
		}
	}
	rep.Rows = append(rep.Rows, Row{Method: "full", Ratio: 1})
	for _, method := range plan.Methods {
		for _, ratio := range plan.Ratios {
			rep.Rows = append(rep.Rows, Row{Method: method, Ratio: ratio})
		}
	}
	for i := range rep.Rows {
		rep.Rows[i].fill(all, i)
	}
	for _, c := range all {
		rep.Predictions += c[0].tokens
		rep.Answers += c[0].answers
	}
	return rep
}

func (r *Row) fill(all [][]measure, index int) {
	var sum, full measure
	var excess []float64 // per window: mean log likelihood lost
	var took []time.Duration
	for _, c := range all {
		m, f := &c[index], &c[0]
		sum.nll += m.nll
		full.nll += f.nll
		sum.tokens += m.tokens
		sum.answers += m.answers
		sum.recalled += m.recalled
		r.Kept += m.kept
		r.Bytes += m.bytes
		r.Attention += m.attention
		took = append(took, m.took)
		if m.tokens > 0 {
			excess = append(excess, (m.nll-f.nll)/float64(m.tokens))
		}
	}
	n := float64(len(all))
	r.Kept, r.Bytes, r.Attention = r.Kept/n, r.Bytes/n, r.Attention/n
	slices.Sort(took)
	r.Millis = float64(took[len(took)/2]) / float64(time.Millisecond)
	if sum.tokens > 0 {
		n := float64(sum.tokens)
		perplexity, relative := math.Exp(sum.nll/n), math.Exp((sum.nll-full.nll)/n)
		deviation := relative * standardError(excess)
		r.Perplexity, r.Relative, r.Deviation = &perplexity, &relative, &deviation
	}
	if sum.answers > 0 {
		recall := float64(sum.recalled) / float64(sum.answers)
		r.Recall = &recall
	}
}

// standardError is that of the mean.
func standardError(x []float64) float64 {
	if len(x) < 2 {
		return 0
	}
	n, mean, square := float64(len(x)), 0.0, 0.0
	for _, v := range x {
		mean += v / n
	}
	for _, v := range x {
		square += (v - mean) * (v - mean)
	}
	return math.Sqrt(square / (n - 1) / n)
}

// WriteTable prints one line a row.
func (rep *Report) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d perplexity windows (%d tokens), %d recall cases (%d answers)\n\n", rep.Windows, rep.Predictions, rep.RecallCases, rep.Answers)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "method\tratio\tperplexity ratio\t±\trecall\tattention error\ttokens kept\tbytes kept\tcompress ms\t")
	for i := range rep.Rows {
		r := &rep.Rows[i]
		fmt.Fprintf(t, "%s\t%.4g\t%s\t%s\t%s\t%.3f\t%.3f\t%.3f\t%.2f\t\n", r.Method, r.Ratio,
			optional(r.Relative, 4), optional(r.Deviation, 4), optional(r.Recall, 3), r.Attention, r.Kept, r.Bytes, r.Millis)
	}
	return t.Flush()
}

func optional(x *float64, digits int) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *x)
}
