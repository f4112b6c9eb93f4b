package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// Depths of a terminal's colours.
const (
	noColours   = 0
	fewColours  = 256
	trueColours = 1 << 24
)

// colourDepth is what a terminal can do.
func colourDepth(w io.Writer, when string) int {
	if !show.Coloured(w, when) {
		return noColours
	}
	if c := os.Getenv("COLORTERM"); c == "truecolor" || c == "24bit" {
		return trueColours
	}
	return fewColours
}

// viewer writes a page for a terminal.
type viewer struct {
	w       io.Writer
	colours int
}

// droppedToken is what stands in a studio's assignment for a token that no core stands for.
const droppedToken = 0xffff

func (v viewer) page(x *inspected, layer, head, from, count int) error {
	r := x.Result
	if layer < 0 {
		layer = typicalOf(r.Slots, r.Tokens, r.Ratio)
	}
	if layer >= r.Layers || head < 0 || head >= r.Heads {
		return fmt.Errorf("there are layers 0 to %d and KV heads 0 to %d, got --layer %d --head %d", r.Layers-1, r.Heads-1, layer, head)
	}
	fmt.Fprintf(v.w, "%s\n%s\n\n", x.Title, x.Subtitle)
	fmt.Fprintf(v.w, "  cores   %.1f %% of %d tokens, mean of %d layers and %d KV heads\n  bytes   %s -> %s (%.1f %%)\n", 100*r.Ratio, r.Tokens, r.Layers, r.Heads,
		show.Size(r.BytesIn), show.Size(r.BytesOut), 100*float64(r.BytesOut)/float64(max(r.BytesIn, 1)))
	if r.Measured {
		fmt.Fprintf(v.w, "  loss    attention error %.3f, worst %.3f at layer/head %s\n", r.AttentionError, r.WorstError, r.WorstHead)
	} else {
		fmt.Fprintf(v.w, "  loss    not measured: the page brought no queries\n")
	}
	v.losses(r.Loss, r.Slots, r.Tokens)
	if r.Assign == "" {
		fmt.Fprintf(v.w, "\n%s: every token is its own core\n", r.Outcome)
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(r.Assign)
	if err != nil {
		return err
	}
	row := raw[2*(layer*r.Heads+head)*r.Tokens:]
	core := func(i int) int { return int(binary.LittleEndian.Uint16(row[2*i:])) }
	if from < 0 {
		from = max(0, r.Tokens/2-count/2)
	}
	to := min(from+max(count, 1), r.Tokens)
	if from >= to {
		return fmt.Errorf("the page has %d tokens, got --from %d", r.Tokens, from)
	}
	fmt.Fprintf(v.w, "\ntokens %d to %d, layer %d, KV head %d (%d cores):\n", from, to-1, layer, head, r.Slots[layer][head])
	word := func(i int) string {
		switch {
		case i < len(x.Tokens.Words) && x.Tokens.Words[i] != "":
			return strings.NewReplacer("\n", "⏎", "\t", "⇥", "\x1b", "?", "\r", "?").Replace(x.Tokens.Words[i])
		case i < len(x.Tokens.IDs):
			return fmt.Sprintf("·%d", x.Tokens.IDs[i])
		}
		return "•"
	}
	v.strip(from, to, r.Tokens, core, word)
	return nil
}

// typicalOf is the layer whose first head keeps nearest to the mean.
func typicalOf(slots [][]int, tokens int, ratio float64) int {
	best, gap := 0, math.Inf(1)
	for l, row := range slots {
		if d := math.Abs(float64(row[0])/float64(tokens) - ratio); d < gap {
			best, gap = l, d
		}
	}
	return best
}

// losses draws a line for each layer: a block for each head.
func (v viewer) losses(loss [][]float64, slots [][]int, tokens int) {
	const blocks = "▁▂▃▄▅▆▇█"
	if len(loss) == 0 {
		return
	}
	fmt.Fprintf(v.w, "\n  layer  loss of each query head%s kept\n", strings.Repeat(" ", max(1, len(loss[0])-22)))
	for l, row := range loss {
		fmt.Fprintf(v.w, "  %5d  ", l)
		for _, e := range row {
			k := min(int(e/0.6*8), 7)
			cell := string([]rune(blocks)[max(k, 0)])
			fmt.Fprint(v.w, v.fore(rampColour(e/0.6), cell))
		}
		kept := 0
		for _, n := range slots[l] {
			kept += n
		}
		fmt.Fprintf(v.w, "%s %3.0f %%\n", strings.Repeat(" ", max(1, 23-len(row))), 100*float64(kept)/float64(tokens*len(slots[l])))
	}
}

// strip writes tokens in lines; without colours a line of letters stands below each.
func (v viewer) strip(from, to, n int, core func(int) int, word func(int) string) {
	sizes := map[int]int{}
	for i := range n {
		sizes[core(i)]++
	}
	rank := map[int]int{}
	for i := from; i < to; i++ {
		if c := core(i); sizes[c] > 1 && c != droppedToken {
			if _, ok := rank[c]; !ok {
				rank[c] = len(rank)
			}
		}
	}
	var text, marks strings.Builder
	width := 0
	flush := func() {
		fmt.Fprintf(v.w, "  %s\n", text.String())
		if v.colours == noColours {
			fmt.Fprintf(v.w, "  %s\n", strings.TrimRight(marks.String(), " "))
		}
		text.Reset()
		marks.Reset()
		width = 0
	}
	for i := from; i < to; i++ {
		w := word(i)
		cells := utf8.RuneCountInString(w)
		if width+cells > show.StripWidth && width > 0 {
			flush()
		}
		width += cells
		k, merged := rank[core(i)]
		mark := "."
		switch {
		case core(i) == droppedToken:
			mark = "x"
			w = v.style("9;2", w)
		case merged:
			mark = string(show.Letters[k%len(show.Letters)])
			w = v.back(k, w)
		default:
			w = v.style("2", w)
		}
		text.WriteString(w)
		marks.WriteString(strings.Repeat(" ", max(cells-1, 0)) + mark)
	}
	if width > 0 {
		flush()
	}
	if v.colours == noColours {
		fmt.Fprintln(v.w, "  (tokens of one core share a letter; a dot: stays as it is; x: dropped)")
	} else {
		fmt.Fprintln(v.w, "  (tokens of one core share a colour; dim: stays as it is; struck out: dropped)")
	}
}

func (v viewer) style(code, text string) string {
	if v.colours == noColours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (v viewer) fore(rgb [3]int, text string) string {
	switch v.colours {
	case trueColours:
		return v.style(fmt.Sprintf("38;2;%d;%d;%d", rgb[0], rgb[1], rgb[2]), text)
	case fewColours:
		return v.style(fmt.Sprintf("38;5;%d", 16+36*(rgb[0]*6/256)+6*(rgb[1]*6/256)+rgb[2]*6/256), text)
	}
	return text
}

func (v viewer) back(k int, text string) string {
	switch v.colours {
	case trueColours:
		c := lightColour(float64(k) * 137.508) // the golden angle: neighbours differ most
		return v.style(fmt.Sprintf("30;48;2;%d;%d;%d", c[0], c[1], c[2]), text)
	case fewColours:
		return v.style(fmt.Sprintf("30;48;5;%d", show.Palette[k%len(show.Palette)]), text)
	}
	return text
}

// lightColour is a light colour of a hue in degrees, on which black can be read.
func lightColour(hue float64) (rgb [3]int) {
	const saturation, light = 0.72, 0.8
	a := saturation * min(light, 1-light)
	for i, n := range []float64{0, 8, 4} {
		k := math.Mod(n+hue/30, 12)
		rgb[i] = int(255 * (light - a*max(-1, min(k-3, 9-k, 1))))
	}
	return rgb
}

var rampStops = [][3]float64{{0x1b, 0x9e, 0x8f}, {0x8f, 0xc9, 0x6a}, {0xf2, 0xd0, 0x4b}, {0xee, 0x8a, 0x3a}, {0xc9, 0x32, 0x4b}}

// rampColour goes from teal (0) to red (1).
func rampColour(share float64) (rgb [3]int) {
	s := max(0, min(share, 0.9999)) * float64(len(rampStops)-1)
	i := int(s)
	for k := range rgb {
		rgb[k] = int(rampStops[i][k] + (s-float64(i))*(rampStops[i+1][k]-rampStops[i][k]))
	}
	return rgb
}
