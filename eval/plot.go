package eval

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// The picture's geometry, in pixels.
const (
	panelWidth, panelHeight = 400, 320
	marginLeft, marginTop   = 70, 64
	gap, labelWidth         = 50, 150
	marginBottom            = 60
)

// series is one method's line.
type series struct {
	name   string
	points []point
}

type point struct{ x, y, spread float64 }

// mostLines is how many methods a picture shows: those named first. The table has all.
const mostLines = 7

// WriteSVG draws bytes kept against the perplexity ratio and against recall, one line a method with its name at its end; whiskers are
// two standard errors. A panel without data is left out. The picture follows the viewer's light or dark mode.
func (rep *Report) WriteSVG(w io.Writer) error {
	panels := []struct {
		title, low string
		of         func(*Row) *float64
	}{
		{"Perplexity, relative to the full cache", "lower is better", func(r *Row) *float64 { return r.Relative }},
		{"Facts recalled (all 4 digits right)", "higher is better", func(r *Row) *float64 { return r.Recall }},
	}
	var svg strings.Builder
	x, names := marginLeft, rep.methods()
	left := len(names) - mostLines
	if left > 0 {
		names = names[:mostLines]
	}
	for _, p := range panels {
		lines := rep.lines(p.of, names)
		if len(lines) == 0 {
			continue
		}
		var reference *float64
		if len(rep.Rows) > 0 && rep.Rows[0].Method == "full" {
			reference = p.of(&rep.Rows[0])
		}
		panel(&svg, x, p.title, p.low, lines, names, reference)
		x += panelWidth + labelWidth + gap
	}
	note := "whiskers: two standard errors"
	if rep.RecallCases > 0 {
		note = fmt.Sprintf("%d recall cases; %s", rep.RecallCases, note)
	}
	if rep.Windows > 0 {
		note = fmt.Sprintf("%d windows, %d tokens predicted; %s", rep.Windows, rep.Predictions, note)
	}
	if left > 0 {
		note += fmt.Sprintf("; %d further methods are in the table", left)
	}
	width, height := max(x-gap, marginLeft+panelWidth+labelWidth), marginTop+panelHeight+marginBottom+26
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="%s">
<style>.g{fill:#fff}.i{fill:#16202b}.m{fill:#566373}.l{stroke:#dfe5eb}.r{stroke:#566373}@media (prefers-color-scheme:dark){.g{fill:#161e27}.i{fill:#e8eef4}.m{fill:#a1afbd}.l{stroke:#2a3643}.r{stroke:#a1afbd}}</style>
<rect class="g" width="100%%" height="100%%"/>
%s<text class="m" x="%d" y="%d" font-size="12">%s</text>
</svg>
`, width, height, width, height, html.EscapeString(note), svg.String(), marginLeft, height-12, html.EscapeString(note))
	return err
}

// methods lists the methods in order of first mention, without the full cache.
func (rep *Report) methods() []string {
	var out []string
	for i := range rep.Rows {
		if m := rep.Rows[i].Method; m != "full" && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

func (rep *Report) lines(of func(*Row) *float64, names []string) []series {
	var out []series
	for _, name := range names {
		s := series{name: name}
		for i := range rep.Rows {
			r := &rep.Rows[i]
			if y := of(r); r.Method == name && y != nil && r.Bytes > 0 {
				p := point{x: r.Bytes, y: *y}
				if y == r.Relative && r.Deviation != nil {
					p.spread = 2 * *r.Deviation
				}
				s.points = append(s.points, p)
			}
		}
		slices.SortFunc(s.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		if len(s.points) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// panel draws axes, grid and lines. x is logarithmic, y linear.
func panel(svg *strings.Builder, left int, title, low string, lines []series, names []string, reference *float64) {
	xlo, xhi, ylo, yhi := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range lines {
		for _, p := range s.points {
			xlo, xhi = min(xlo, p.x), max(xhi, p.x)
			ylo, yhi = min(ylo, p.y-p.spread), max(yhi, p.y+p.spread)
		}
	}
	if reference != nil {
		ylo, yhi = min(ylo, *reference), max(yhi, *reference)
	}
	step := tick(max(yhi-ylo, 1e-6))
	ylo, yhi = math.Floor(ylo/step)*step, math.Ceil(yhi/step)*step
	if yhi <= ylo {
		yhi = ylo + step
	}
	llo, lhi := math.Log2(xlo)-0.15, math.Log2(xhi)+0.15
	px := func(x float64) float64 { return float64(left) + (math.Log2(x)-llo)/(lhi-llo)*panelWidth }
	py := func(y float64) float64 { return marginTop + (yhi-y)/(yhi-ylo)*panelHeight }

	fmt.Fprintf(svg, `<text class="i" x="%d" y="%d" font-size="15" font-weight="600">%s</text><text class="m" x="%d" y="%d" font-size="12">%s</text>`+"\n",
		left, marginTop-28, html.EscapeString(title), left, marginTop-10, low)
	for i := 0; ylo+float64(i)*step <= yhi+step/2; i++ {
		y := ylo + float64(i)*step
		fmt.Fprintf(svg, `<path class="l" d="M%d %.1fh%d"/><text class="m" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, py(y), panelWidth, left-8, py(y)+4, strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", y), "0"), "."))
	}
	for e := math.Ceil(llo); e <= lhi; e++ {
		x := math.Exp2(e)
		fmt.Fprintf(svg, `<path class="l" d="M%.1f %dv%d"/><text class="m" x="%.1f" y="%d" text-anchor="middle">%.4g %%</text>`+"\n",
			px(x), marginTop, panelHeight, px(x), marginTop+panelHeight+18, 100*x)
	}
	fmt.Fprintf(svg, `<text class="m" x="%d" y="%d" text-anchor="middle">bytes kept (log scale)</text>`+"\n", left+panelWidth/2, marginTop+panelHeight+40)
	if reference != nil {
		fmt.Fprintf(svg, `<path class="r" d="M%d %.1fh%d" stroke-dasharray="6 4"/>`+"\n", left, py(*reference), panelWidth)
	}
	ends := make([]label, 0, len(lines)+1)
	if reference != nil {
		ends = append(ends, label{y: py(*reference), text: "full cache", class: "m"})
	}
	for _, s := range lines {
		look := lookOf(slices.Index(names, s.name))
		var path strings.Builder
		for i, p := range s.points {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], px(p.x), py(p.y))
			if p.spread > 0 {
				fmt.Fprintf(svg, `<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-width="1.5" opacity=".6"/>`+"\n", px(p.x), py(p.y-p.spread), py(p.y+p.spread), look)
			}
		}
		fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), look)
		for _, p := range s.points {
			fmt.Fprintf(svg, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s: %.1f %% of the bytes, %.4f</title></circle>`+"\n",
				px(p.x), py(p.y), look, html.EscapeString(s.name), 100*p.x, p.y)
		}
		last := s.points[len(s.points)-1]
		ends = append(ends, label{y: py(last.y), text: s.name, colour: look})
	}
	spread(ends)
	for _, e := range ends {
		fmt.Fprintf(svg, `<text x="%d" y="%.1f" font-size="12" font-weight="600"%s>%s</text>`+"\n", left+panelWidth+8, e.y+4, e.paint(), html.EscapeString(e.text))
	}
}

// label is a line's name at its end.
type label struct {
	y                   float64
	text, colour, class string
}

func (l *label) paint() string {
	if l.colour != "" {
		return ` fill="` + l.colour + `"`
	}
	return ` class="` + l.class + `"`
}

// spread moves labels apart, so that none covers another.
func spread(labels []label) {
	const apart = 15
	slices.SortFunc(labels, func(a, b label) int { return cmp.Compare(a.y, b.y) })
	for i := 1; i < len(labels); i++ {
		labels[i].y = max(labels[i].y, labels[i-1].y+apart)
	}
	if n := len(labels); n > 0 { // what fell out below moves up again
		labels[n-1].y = min(labels[n-1].y, marginTop+panelHeight+4)
		for i := n - 2; i >= 0; i-- {
			labels[i].y = min(labels[i].y, labels[i+1].y-apart)
		}
	}
}

// colours can be told apart by most people, on white and on black.
var colours = [mostLines]string{"#0b8f83", "#d9601a", "#8257d6", "#d6428d", "#b08900", "#3b82f6", "#7a8896"}

func lookOf(i int) string { return colours[i%len(colours)] }

// tick is a round step that divides a span into four to ten parts.
func tick(span float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(span)))
	for _, f := range []float64{0.1, 0.2, 0.25, 0.5} {
		if span/(f*unit) <= 8 {
			return f * unit
		}
	}
	return unit
}
