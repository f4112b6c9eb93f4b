package scalebench

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// The picture's geometry, in pixels.
const (
	plotWidth, plotHeight = 560, 360
	plotLeft, plotTop     = 84, 64
	plotLabels            = 300
)

// colours can be told apart by most people, on white and on black.
var colours = []string{"#d9601a", "#8257d6", "#0b8f83", "#3b82f6"}

// WriteSVG draws nodes against tokens a second, one line a topology, with a ring where it saturates. The picture follows the viewer's
// light or dark mode.
func (r *Report) WriteSVG(w io.Writer) error {
	if len(r.Simulated) == 0 || len(r.Plan.Nodes) == 0 {
		return nil
	}
	lowN, highN := math.Inf(1), 0.0
	for _, n := range r.Plan.Nodes {
		lowN, highN = min(lowN, float64(n)), max(highN, float64(n))
	}
	highN = max(highN, 2*lowN)
	rate := r.Plan.Deployment.NodeTokens
	low, high := math.Log10(lowN*rate), math.Log10(highN*rate)
	px := func(n float64) float64 { return plotLeft + plotWidth*math.Log(n/lowN)/math.Log(highN/lowN) }
	py := func(tokens float64) float64 {
		return plotTop + plotHeight*(1-(math.Log10(max(tokens, 1))-low)/(high-low))
	}
	var b strings.Builder
	for _, n := range r.Plan.Nodes {
		fmt.Fprintf(&b, `<path class="l" d="M%.1f %dv%d"/><text class="m" x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			px(float64(n)), plotTop, plotHeight, px(float64(n)), plotTop+plotHeight+18, n)
	}
	for e := math.Ceil(low); e <= high; e++ {
		y := py(math.Pow(10, e))
		fmt.Fprintf(&b, `<path class="l" d="M%d %.1fh%d"/><text class="m" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, y, plotWidth, plotLeft-8, y+4, thousands(math.Pow(10, e)))
	}
	fmt.Fprintf(&b, `<path class="r" d="M%.1f %.1fL%.1f %.1f" stroke-dasharray="6 4"/>`+"\n", px(lowN), py(lowN*rate), px(highN), py(highN*rate))
	fmt.Fprintf(&b, `<text class="m" x="%d" y="%d" text-anchor="middle">nodes (log scale)</text>`+"\n", plotLeft+plotWidth/2, plotTop+plotHeight+40)
	lastY := math.Inf(-1)
	for i := len(r.Simulated) - 1; i >= 0; i-- { // what goes furthest first: its name is on top
		s, look := &r.Simulated[i], colours[i%len(colours)]
		var path strings.Builder
		for k, x := range s.Results {
			fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[k == 0], px(float64(r.Plan.Nodes[k])), py(x.Tokens))
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="%d" opacity=".8"/>`+"\n", path.String(), look, 2+2*max(0, i-1))
		if s.Saturates > 0 {
			bound, _ := Bound(&r.Costs, &r.Plan.Deployment, s.Topology, s.Saturates)
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="6" fill="none" stroke="%s" stroke-width="2"/>`+"\n", px(float64(s.Saturates)), py(bound), look)
		}
		y := max(py(s.Results[len(s.Results)-1].Tokens), lastY+34)
		lastY = y
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" font-size="12" font-weight="600" fill="%s">%s</text><text class="m" x="%d" y="%.1f" font-size="11">%s</text>`+"\n",
			plotLeft+plotWidth+10, y+4, look, html.EscapeString(string(s.Topology)), plotLeft+plotWidth+10, y+18, html.EscapeString(s.verdict(r.Plan.most())))
	}
	width, height := plotLeft+plotWidth+plotLabels, plotTop+plotHeight+60
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="tokens a second by nodes, for each way to wire them">
<style>.g{fill:#fff}.i{fill:#16202b}.m{fill:#566373}.l{stroke:#dfe5eb}.r{stroke:#566373;fill:none}@media (prefers-color-scheme:dark){.g{fill:#161e27}.i{fill:#e8eef4}.m{fill:#a1afbd}.l{stroke:#2a3643}.r{stroke:#a1afbd}}</style>
<rect class="g" width="100%%" height="100%%"/>
<text class="i" x="%d" y="%d" font-size="15" font-weight="600">Tokens a second that are compressed</text><text class="m" x="%d" y="%d" font-size="12">simulated; dashed: what the nodes send; rings: where a resource saturates</text>
%s</svg>
`, width, height, width, height, plotLeft, plotTop-28, plotLeft, plotTop-10, b.String())
	return err
}
