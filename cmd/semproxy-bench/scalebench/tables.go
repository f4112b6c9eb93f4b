package scalebench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is a heading and lines of as many cells.
type table struct {
	heads []string
	lines [][]string
}

func (t *table) add(cells ...string) { t.lines = append(t.lines, cells) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()*1e3) }

// off is how far a prediction is from what was measured.
func off(predicted, measured float64) string {
	return fmt.Sprintf("%+.0f %%", 100*(predicted/measured-1))
}

// measured holds what was measured against what the simulation says of it.
func (r *Report) measured() *table {
	t := &table{heads: []string{"work", "sidecars", "pages at once", "free cores", "pages/s", "predicted", "off", "p50, ms", "predicted", "p99, ms", "predicted"}}
	for i, m := range r.Rows {
		p := r.Predicted[i]
		t.add(m.Work, fmt.Sprint(m.Sidecars), fmt.Sprint(m.Clients), fmt.Sprintf("%.2f", m.Machine.Free), fmt.Sprintf("%.1f", m.Pages),
			fmt.Sprintf("%.1f", p.Pages), off(p.Pages, m.Pages), ms(m.P50), ms(p.P50), ms(m.P99), ms(p.P99))
	}
	return t
}

// used is what a page takes of each part.
func (r *Report) used() *table {
	t := &table{heads: []string{"work", "sidecars", "pages at once", "sidecar", "NATS", "Redis", "client", "to NATS, MB", "to Redis, MB", "asked again"}}
	mb := func(n int64) string {
		if n == 0 {
			return "not counted"
		}
		return fmt.Sprintf("%.2f", float64(n)/1e6)
	}
	rows := r.Rows
	if r.Leaf != nil {
		rows = append(slices.Clone(rows), *r.Leaf)
	}
	for _, m := range rows {
		c := m.Costs
		t.add(m.Work, fmt.Sprint(m.Sidecars), fmt.Sprint(m.Clients), ms(c.Sidecar), ms(c.NATS), ms(c.Redis), ms(c.Client), mb(c.NATSBytes), mb(c.RedisBytes), fmt.Sprint(m.Retried))
	}
	return t
}

// simulated is one topology.
func (r *Report) simulated(s *Simulated) *table {
	t := &table{heads: []string{"nodes", "tokens/s sent", "compressed", "bound", "left exact", "p50, ms", "p99, ms", "NATS, Gbit/s", "Redis, Gbit/s", "busiest"}}
	for i, x := range s.Results {
		t.add(fmt.Sprint(r.Plan.Nodes[i]), thousands(x.Offered), thousands(x.Tokens), thousands(s.Bounds[i]), fmt.Sprintf("%.0f %%", 100*x.Exact), ms(x.P50), ms(x.P99),
			fmt.Sprintf("%.2f", x.NATSBits/1e9), fmt.Sprintf("%.2f", x.RedisBits/1e9), fmt.Sprintf("%s, %.0f %%", x.Busiest, 100*x.Used))
	}
	return t
}

func thousands(x float64) string {
	text := fmt.Sprintf("%.0f", x)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// WriteTables prints all of it as text.
func (r *Report) WriteTables(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	write := func(title string, x *table) {
		fmt.Fprintf(t, "%s\n%s\n", title, strings.Join(x.heads, "\t"))
		for _, line := range x.lines {
			fmt.Fprintln(t, strings.Join(line, "\t"))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "%s, load %s, %s\n\n", r.Machine, r.Load, r.where())
	write("Measured, and predicted from one sidecar:", r.measured())
	write("Processor time and bytes of a page, ms and MB:", r.used())
	for i := range r.Simulated {
		s := &r.Simulated[i]
		write(string(s.Topology)+": "+s.verdict(r.Plan.most()), r.simulated(s))
	}
	return t.Flush()
}

func (r *Report) where() string {
	if r.Namespaces {
		return "each NATS and Redis server in a network namespace of its own"
	}
	return "all on the loopback, without network namespaces (" + r.WhyNot + ")"
}

func (p *Plan) most() int {
	most := 0
	for _, n := range p.Nodes {
		most = max(most, n)
	}
	return most
}

// verdict is where the topology saturates.
func (s *Simulated) verdict(most int) string {
	if s.Saturates == 0 {
		return fmt.Sprintf("nothing is full up to %d nodes", most)
	}
	return fmt.Sprintf("full from %d nodes on: %s", s.Saturates, s.Limit)
}
