package demo

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress/delimiter"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/page"
)

// writeTrace draws one trace: its spans by start, indented under their parents, each with its share of the whole.
func writeTrace(w io.Writer, spans []sdktrace.ReadOnlySpan, id, title string) {
	var all []sdktrace.ReadOnlySpan
	children := map[trace.SpanID][]sdktrace.ReadOnlySpan{}
	known := map[trace.SpanID]bool{}
	for _, s := range spans {
		if s.SpanContext().TraceID().String() == id {
			all = append(all, s)
			known[s.SpanContext().SpanID()] = true
		}
	}
	if len(all) == 0 {
		return
	}
	slices.SortFunc(all, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	var roots []sdktrace.ReadOnlySpan
	for _, s := range all {
		if p := s.Parent().SpanID(); known[p] {
			children[p] = append(children[p], s)
		} else {
			roots = append(roots, s)
		}
	}
	begin, whole := roots[0].StartTime(), roots[0].EndTime().Sub(roots[0].StartTime())
	fmt.Fprintf(w, "trace %s: %s\n", id, title)
	var draw func(s sdktrace.ReadOnlySpan, depth int)
	draw = func(s sdktrace.ReadOnlySpan, depth int) {
		name := s.Name()
		if depth > 0 {
			name = strings.Repeat("│ ", depth-1) + "└ " + name
		}
		fmt.Fprintf(w, "%-24s %s %8s  %s\n", name, bar(s, begin, whole), show.Duration(s.EndTime().Sub(s.StartTime())), details(s))
		for _, c := range children[s.SpanContext().SpanID()] {
			draw(c, depth+1)
		}
	}
	for _, s := range roots {
		draw(s, 0)
	}
}

// bar shows when within the trace a span ran.
func bar(s sdktrace.ReadOnlySpan, begin time.Time, whole time.Duration) string {
	const width = 32
	at := func(t time.Time) int {
		return min(max(int(float64(t.Sub(begin))/float64(whole)*width), 0), width)
	}
	from, to := at(s.StartTime()), at(s.EndTime())
	to = max(to, from+1)
	if to > width {
		from, to = width-1, width
	}
	return strings.Repeat("·", from) + strings.Repeat("█", to-from) + strings.Repeat("·", width-to)
}

// details are the attributes that a person looks for first.
func details(s sdktrace.ReadOnlySpan) string {
	var out []string
	for _, a := range s.Attributes() {
		key := strings.TrimPrefix(string(a.Key), "semproxy.")
		switch {
		case s.Name() == semconv.SpanDecide && slices.Contains([]string{"tenant", "rule", "policy"}, key),
			s.Name() == semconv.SpanCompress && slices.Contains([]string{"ratio", "fidelity.attention_error", "fidelity.key_similarity", "device"}, key):
			out = append(out, key+"="+shown(a.Value))
		case s.Name() == semconv.SpanStore && key == "object":
			out = append(out, key+"="+shown(a.Value)[:12])
		}
	}
	return strings.Join(out, " ")
}

func shown(v attribute.Value) string {
	if v.Type() == attribute.FLOAT64 {
		return fmt.Sprintf("%.3f", v.AsFloat64())
	}
	return v.AsString()
}

// stripTokens is how long the stretch of the text is that the strip shows.
const stripTokens = 150

// writeStrip shows which tokens became one core, for one head of one layer: the same colour, or without colours the same
// letter under the text. Tokens that stayed alone are dim, or have a dot.
func writeStrip(w io.Writer, p *page.Page, c *page.Cores, words *delimiter.Table, colour bool) {
	layer, head := typicalLayer(p, c), 0
	row := c.Assign[4*(layer*p.KVHeads+head)*p.Tokens:]
	core := func(i int) int { return int(binary.LittleEndian.Uint32(row[4*i:])) }
	sizes := map[int]int{}
	for i := range p.Tokens {
		sizes[core(i)]++
	}
	from := max(p.Tokens/4, 0)
	to := min(from+stripTokens, p.Tokens)
	fmt.Fprintf(w, "\ntokens %d-%d of %q, layer %d, head %d: tokens of one core share a %s\n", from, to-1, p.Sequence, layer, head,
		map[bool]string{true: "colour", false: "letter (a dot: kept as it is)"}[colour])
	// Cores get letters by how many of the shown tokens they hold, so that the large ones stand out.
	shown := map[int]int{}
	for i := from; i < to; i++ {
		if sizes[core(i)] > 1 {
			shown[core(i)]++
		}
	}
	order := make([]int, 0, len(shown))
	for k := range shown {
		order = append(order, k)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Or(shown[b]-shown[a], a-b) })
	rank := map[int]int{}
	for i, k := range order {
		rank[k] = i
	}
	var text, marks strings.Builder
	width := 0
	flush := func() {
		fmt.Fprintf(w, "  %s\n", text.String())
		if !colour {
			fmt.Fprintf(w, "  %s\n", marks.String())
		}
		text.Reset()
		marks.Reset()
		width = 0
	}
	for i := from; i < to; i++ {
		word, _ := words.Text(p.TokenIDs.At(i))
		word = strings.ToValidUTF8(strings.ReplaceAll(word, "\n", "⏎"), "?")
		n := utf8.RuneCountInString(word)
		if width+n > show.StripWidth {
			flush()
		}
		width += n
		r, merged := rank[core(i)]
		switch {
		case colour && merged:
			fmt.Fprintf(&text, "\x1b[30;48;5;%dm%s\x1b[0m", show.Palette[r%len(show.Palette)], word)
		case colour:
			fmt.Fprintf(&text, "\x1b[2m%s\x1b[0m", word)
		default:
			text.WriteString(word)
		}
		mark := "."
		if merged {
			mark = string(show.Letters[r%len(show.Letters)])
		}
		marks.WriteString(strings.Repeat(" ", max(n-1, 0)) + mark)
	}
	flush()
}

// typicalLayer is the layer whose first head keeps nearest to the page's mean: an adaptive budget leaves some layers almost
// whole and merges others almost wholly.
func typicalLayer(p *page.Page, c *page.Cores) int {
	best, distance := 0, math.Inf(1)
	for l := range p.Layers {
		if d := math.Abs(float64(c.Head(l, 0).N) - c.Ratio*float64(p.Tokens)); d < distance {
			best, distance = l, d
		}
	}
	return best
}
