package engineproof

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"time"
)

//go:embed report.html
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"rows": (*Report).rows, "class": class}).Parse(page))

// columns of the table; rows has the cells.
var columns = []string{
	"tenant", "profile", "verdict", "prompts on cores", "answers changed (exact against itself)", "first differing token", "logprob difference (exact against itself)",
	"task score exact", "on cores", "prompt tokens", "slots", "time to first token exact", "on cores", "tokens/s exact", "on cores",
}

func (r *Report) rows() [][]string {
	var out [][]string
	for i := range r.Results {
		x := &r.Results[i]
		score := [2]string{"-", "-"}
		if x.Tasks > 0 {
			score = [2]string{fmt.Sprintf("%.1f %% of %d", 100*x.ScoreExact, x.Tasks), fmt.Sprintf("%.1f %%", 100*x.ScoreCores)}
		}
		changed, first := "-", "-"
		if x.OnCores > 0 {
			changed = fmt.Sprintf("%.1f %% (%.1f %%)", 100*float64(x.Changed)/float64(x.OnCores), 100*float64(x.ChangedExact)/float64(x.OnCores))
		}
		if x.Changed > 0 {
			first = strconv.FormatFloat(x.FirstToken, 'f', -1, 64)
		}
		slots := some(x.Slots, "%.0f")
		if x.Slots == 0 && x.Ratio > 0 {
			slots = fmt.Sprintf("%.3f per token", x.Ratio)
		}
		out = append(out, []string{
			x.Tenant, x.Profile, string(x.Verdict), fmt.Sprintf("%d of %d", x.OnCores, x.Asked), changed, first, difference(x.Logprob) + " (" + difference(x.LogprobExact) + ")",
			score[0], score[1], some(x.PromptTokens, "%.0f"), slots, some(x.TTFT[0], "%.0f ms"), some(x.TTFT[1], "%.0f ms"),
			some(x.PerSecond[0], "%.1f"), some(x.PerSecond[1], "%.1f"),
		})
	}
	return out
}

func some(x float64, format string) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf(format, x)
}

func difference(x *float64) string {
	if x == nil {
		return "-"
	}
	return fmt.Sprintf("%.4f", *x)
}

func class(verdict string) string { return strings.ReplaceAll(verdict, " ", "-") }

// Columns of the table, for the template.
func (r *Report) Columns() []string { return columns }

// When it was asked, for the template.
func (r *Report) When() string { return r.Began.Format(time.RFC3339) }

// Markdown writes the report as a table with its verdicts.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Own prompts on cores: %s\n\n", r.Verdict())
	fmt.Fprintf(&b, "%d prompts, model %s, engine %s, %s. Greedy; each prompt was asked exactly twice, then on cores. Medians; one request at a time.\n\n",
		r.Prompts, cell(r.Model), cell(r.Engine), r.When())
	row := func(cells []string) {
		for i, c := range cells {
			cells[i] = cell(c)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	row(append([]string{}, columns...))
	b.WriteString(strings.Repeat("| --- ", len(columns)) + "|\n")
	for _, cells := range r.rows() {
		row(cells)
	}
	b.WriteString("\n")
	for i := range r.Results {
		x := &r.Results[i]
		fmt.Fprintf(&b, "- %s, %s: **%s**. %s.\n", cell(x.Tenant), cell(orNone(x.Profile)), x.Verdict, cell(x.Why))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func orNone(profile string) string {
	if profile == "" {
		return "no profile"
	}
	return profile
}

// cell keeps a text from breaking a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ", "<", "&lt;", "`", "'").Replace(s)
}

// HTML writes the report as a page of its own.
func (r *Report) HTML(w io.Writer) error { return pageTemplate.Execute(w, r) }
