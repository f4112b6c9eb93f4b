package demo

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/configs"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// demoResult is what one tenant got.
type demoResult struct {
	tenant                  demoTenant
	pages, again            int // compressed; served from the store when sent again
	tokens, cores           float64
	bytesIn, bytesOut       int
	similarity, attention   float64 // sums over pages
	equal, wrong            int     // pages held against the reference
	times, againTimes       []time.Duration
	profile, guard, traceID string
	sample                  *page.Page
	sampleCores             *page.Cores
}

// exchange sends one page and takes the reply in.
func (r *demoResult) exchange(ctx context.Context, c *client.Client, p *page.Page, want *labels, again bool) error {
	blob, err := p.Append(nil)
	if err != nil {
		return err
	}
	reply, err := c.Compress(ctx, blob)
	if err != nil {
		return err
	}
	cores, err := page.DecodeCores(reply.Body, page.DefaultLimits()) // the counts of every head are checked here
	if err != nil {
		return fmt.Errorf("the reply does not decode: %w", err)
	}
	if outcome := reply.Header.Get(sidecar.HeaderOutcome); (outcome == semconv.OutcomeStored) != again {
		return fmt.Errorf("outcome %q, sent before: %v", outcome, again)
	}
	if again {
		r.again++
		r.againTimes = append(r.againTimes, reply.Duration)
		return nil
	}
	r.pages++
	r.tokens += float64(p.Tokens * p.Layers)
	r.cores += cores.Ratio * float64(p.Tokens*p.Layers)
	r.bytesIn += len(blob)
	r.bytesOut += len(reply.Body)
	r.similarity += show.Number(cores.Fidelity["key_similarity"])
	r.attention += show.Number(cores.Fidelity["attention_error"])
	r.times = append(r.times, reply.Duration)
	r.profile, r.guard = cores.Policy, cores.Fidelity["guard"]
	if r.traceID == "" {
		r.traceID = traceID(cores.TraceParent)
		r.sample, r.sampleCores = p, cores
	}
	switch {
	case want == nil:
	case want.match(p, cores):
		r.equal++
	default:
		r.wrong++
	}
	return nil
}

// traceID is the second field of a traceparent.
func traceID(parent string) string {
	if len(parent) < 35 {
		return ""
	}
	return parent[3:35]
}

// labels are the clusters that the reference gives: [layers, tokens] or [layers, heads, tokens] between sinks and window.
type labels struct {
	heads, n int
	data     []byte
}

// expectedLabels reads them from the expected file; nil when it has none for the variant.
func expectedLabels(name, variant string) (*labels, error) {
	blob, err := fs.ReadFile(configs.Demo(), name+".expected.safetensors")
	if err != nil {
		return nil, err
	}
	shape, data, ok, err := page.Tensor(blob, variant+"_label")
	if err != nil || !ok {
		return nil, err
	}
	l := &labels{heads: 1, n: shape[len(shape)-1], data: data}
	if len(shape) == 3 {
		l.heads = shape[1]
	}
	return l, nil
}

// match holds the reply's assignment against the reference.
func (l *labels) match(p *page.Page, c *page.Cores) bool {
	const sinks = 4 // of every demo policy
	for layer := range p.Layers {
		for head := range p.KVHeads {
			want := l.data[4*l.n*((p.LayerFirst+layer)*l.heads+head%l.heads):]
			got := c.Assign[4*((layer*p.KVHeads+head)*p.Tokens+sinks):]
			for i := range l.n {
				if binary.LittleEndian.Uint32(got[4*i:]) != binary.LittleEndian.Uint32(want[4*i:])+sinks {
					return false
				}
			}
		}
	}
	return true
}

func writeDemoTable(w io.Writer, results []*demoResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tPROFILE\tPAGES\tTOKENS -> CORES\tRATIO\tBYTES\tKEY SIM.\tATTN ERROR\tGUARD\tP50 / P99")
	for _, r := range results {
		n := float64(r.pages)
		fmt.Fprintf(t, "%s\t%s\t%d\t%.0f -> %.0f\t%.3f\t%s -> %s\t%.3f\t%.3f\t%s\t%s / %s\n",
			r.tenant.name, r.profile, r.pages, r.tokens, r.cores, r.cores/r.tokens, show.Size(r.bytesIn), show.Size(r.bytesOut),
			r.similarity/n, r.attention/n, r.guard, show.Duration(show.Quantile(r.times, 0.5)), show.Duration(show.Quantile(r.times, 0.99)))
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "TENANT\tREFERENCE\tSENT AGAIN\tTRACE OF ITS FIRST PAGE")
	for _, r := range results {
		reference := "-"
		if r.equal+r.wrong > 0 {
			reference = fmt.Sprintf("%d of %d pages equal", r.equal, r.equal+r.wrong)
		}
		fmt.Fprintf(t, "%s\t%s\t%d from the store, p50 %s\t%s\n", r.tenant.name, reference, r.again, show.Duration(show.Quantile(r.againTimes, 0.5)), r.traceID)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, `
TOKENS and CORES are summed over layers (cores: mean over heads).  ATTN ERROR: relative error of the attention output of
held-out real queries over the cores, mean over layers and heads.  REFERENCE: pages whose every token went to the core that the
reference implementation gives, of those that its files cover.

`)
	return err
}
