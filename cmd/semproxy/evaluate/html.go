package evaluate

import (
	"bytes"
	"html/template"
	"strings"
)

// evalPage is one self-contained file: what it means, a picture for each figure, and all numbers.
var evalPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": func(x float64) float64 { return 100 * x },
	"is":      func(x *float64) bool { return x != nil },
	"of":      func(x *float64) float64 { return *x },
	"times":   func(x float64, y *float64) float64 { return x * *y },
	"cost":    func(x *float64) float64 { return 100 * (*x - 1) },
}).Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<title>semproxy eval: {{.Model}}</title>
<style>
:root { --ground: #f4f6f8; --surface: #fff; --ink: #16202b; --muted: #566373; --line: #dfe5eb; --accent: #0b6b63 }
@media (prefers-color-scheme: dark) { :root { --ground: #0e141a; --surface: #161e27; --ink: #e8eef4; --muted: #a1afbd; --line: #2a3643; --accent: #2dd4bf } }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.55 system-ui, sans-serif }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 1.2rem 4rem }
h1 { font-size: 1.6rem; letter-spacing: -.015em; margin: 0 } h2 { font-size: 1.05rem; margin: 0 0 .6rem }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 14px; padding: 1.1rem 1.3rem; margin: 1.1rem 0; overflow-x: auto }
.verdict p { font-size: 1.15rem; margin: .3rem 0 } .muted { color: var(--muted) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums } th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap } th:first-child, td:first-child { text-align: left } th { color: var(--muted); font-size: .82rem }
svg { max-width: 100%; height: auto }
</style></head><body><main>
<h1>What compression costs {{.Model}}</h1>
<p class="muted">{{.Texts}}: {{.Report.Windows}} windows of {{.Context}} tokens, {{.Report.Predictions}} tokens predicted after them{{if .Report.RecallCases}}; {{.Report.RecallCases}} cases of recall{{end}}. {{.Parameters}} parameters.</p>
<section class="verdict">{{range .Verdict}}<p>{{.}}</p>{{end}}{{range .Notes}}<p class="muted">{{.}}</p>{{end}}</section>
<section><h2>Pictures</h2>{{.Picture}}</section>
<section><h2>All figures</h2><table><thead><tr><th scope="col">method</th><th scope="col">slots</th><th scope="col">bytes</th><th scope="col">perplexity</th><th scope="col">±</th><th scope="col">recall</th><th scope="col">attention error</th><th scope="col">compress</th></tr></thead><tbody>
{{range .Report.Rows}}<tr><td>{{.Method}}</td><td>{{printf "%.1f %%" (percent .Kept)}}</td><td>{{printf "%.1f %%" (percent .Bytes)}}</td><td>{{if is .Relative}}{{printf "%+.2f %%" (cost .Relative)}}{{else}}–{{end}}</td><td>{{if is .Deviation}}{{printf "%.2f" (times 100 .Deviation)}}{{end}}</td><td>{{if is .Recall}}{{printf "%.3f" (of .Recall)}}{{else}}–{{end}}</td><td>{{printf "%.3f" .Attention}}</td><td>{{printf "%.1f ms" .Millis}}</td></tr>
{{end}}</tbody></table><p class="muted">Perplexity is against the full cache; ± is the standard error of the mean over windows. Attention error: relative error of the attention output of the queries that follow. Times are of one core.</p></section>
</main></body></html>
`))

// evalHTML fills the page in.
func evalHTML(r *evalResult) ([]byte, error) {
	var svg strings.Builder
	if err := r.Report.WriteSVG(&svg); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := evalPage.Execute(&b, struct {
		*evalResult
		Picture template.HTML
	}{r, template.HTML(svg.String())}) //nolint:gosec // written by WriteSVG, which escapes names
	return b.Bytes(), err
}
