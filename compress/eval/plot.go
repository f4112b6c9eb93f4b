package eval

import (
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
	marginLeft, marginTop   = 70, 50
	gap, legendWidth        = 90, 230
	marginBottom            = 60
)

// series is one method's line.
type series struct {
	name   string
	points []point
}

type point struct{ x, y float64 }

// WriteSVG draws bytes kept against the perplexity ratio and against recall, one line a method. A panel without data is
// left out.
func (rep *Report) WriteSVG(w io.Writer) error {
	panels := []struct {
		title string
		of    func(*Row) *float64
	}{
		{"perplexity / perplexity of the full cache", func(r *Row) *float64 { return r.Relative }},
		{"recall (all 4 digits right)", func(r *Row) *float64 { return r.Recall }},
	}
	var svg strings.Builder
	x, names := marginLeft, rep.methods()
	for _, p := range panels {
		lines := rep.lines(p.of)
		if len(lines) == 0 {
			continue
		}
		var reference *float64
		if len(rep.Rows) > 0 && rep.Rows[0].Method == "full" {
			reference = p.of(&rep.Rows[0])
		}
		panel(&svg, x, p.title, lines, names, reference)
		x += panelWidth + gap
	}
	legend(&svg, x-gap+30, names)
	width, height := x-gap+30+legendWidth, max(marginTop+panelHeight+marginBottom, marginTop+20*len(names)+30)
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">
<rect width="100%%" height="100%%" fill="white"/>
%s</svg>
`, width, height, width, height, svg.String())
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

func (rep *Report) lines(of func(*Row) *float64) []series {
	var out []series
	for _, name := range rep.methods() {
		s := series{name: name}
		for i := range rep.Rows {
			r := &rep.Rows[i]
			if y := of(r); r.Method == name && y != nil && r.Bytes > 0 {
				s.points = append(s.points, point{r.Bytes, *y})
			}
		}
		slices.SortFunc(s.points, func(a, b point) int { return int(math.Copysign(1, a.x-b.x)) })
		if len(s.points) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// panel draws axes, grid and lines. x is logarithmic, y linear.
func panel(svg *strings.Builder, left int, title string, lines []series, names []string, reference *float64) {
	xlo, xhi, ylo, yhi := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, s := range lines {
		for _, p := range s.points {
			xlo, xhi = min(xlo, p.x), max(xhi, p.x)
			ylo, yhi = min(ylo, p.y), max(yhi, p.y)
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

	fmt.Fprintf(svg, `<text x="%d" y="%d" font-size="15">%s</text>`+"\n", left, marginTop-18, html.EscapeString(title))
	for i := 0; ylo+float64(i)*step <= yhi+step/2; i++ {
		y := ylo + float64(i)*step
		fmt.Fprintf(svg, `<path d="M%d %.1fh%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, py(y), panelWidth, left-8, py(y)+4, strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", y), "0"), "."))
	}
	for e := math.Ceil(llo); e <= lhi; e++ {
		x := math.Exp2(e)
		fmt.Fprintf(svg, `<path d="M%.1f %dv%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%.4g %%</text>`+"\n",
			px(x), marginTop, panelHeight, px(x), marginTop+panelHeight+18, 100*x)
	}
	fmt.Fprintf(svg, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#333"/>`+"\n", left, marginTop, panelWidth, panelHeight)
	fmt.Fprintf(svg, `<text x="%d" y="%d" text-anchor="middle">bytes kept (log scale)</text>`+"\n", left+panelWidth/2, marginTop+panelHeight+42)
	if reference != nil {
		fmt.Fprintf(svg, `<path d="M%d %.1fh%d" stroke="#333" stroke-dasharray="6 4"/><text x="%d" y="%.1f" text-anchor="end" fill="#333">full cache</text>`+"\n",
			left, py(*reference), panelWidth, left+panelWidth-6, py(*reference)-5)
	}
	for _, s := range lines {
		look := lookOf(slices.Index(names, s.name))
		var path strings.Builder
		for i, p := range s.points {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], px(p.x), py(p.y))
		}
		fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", path.String(), look.colour, look.dash)
		for _, p := range s.points {
			fmt.Fprintf(svg, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s: %.1f %% of the bytes, %.4f</title></circle>`+"\n",
				px(p.x), py(p.y), look.colour, html.EscapeString(s.name), 100*p.x, p.y)
		}
	}
}

func legend(svg *strings.Builder, left int, names []string) {
	for i, name := range names {
		look, y := lookOf(i), marginTop+10+20*i
		fmt.Fprintf(svg, `<path d="M%d %dh26" stroke="%s" stroke-width="2"%s/><circle cx="%d" cy="%d" r="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			left, y, look.colour, look.dash, left+13, y, look.colour, left+34, y+4, html.EscapeString(name))
	}
}

type look struct{ colour, dash string }

// colours can be told apart by most people (Okabe and Ito); from the ninth line on they repeat, dashed.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"}

func lookOf(i int) look {
	l := look{colour: colours[i%len(colours)]}
	if i >= len(colours) {
		l.dash = ` stroke-dasharray="5 3"`
	}
	return l
}

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
