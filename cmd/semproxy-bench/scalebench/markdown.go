package scalebench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteMarkdown writes the page of the manual.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	p := func(format string, args ...any) { b.WriteString(wrap(fmt.Sprintf(format, args...)) + "\n\n") }
	d, c := &r.Plan.Deployment, &r.Costs
	b.WriteString("# Scale\n\n")
	p("Written by `make scale` on %s: %s, at a load of %s when it began. What was measured differs from run to run; what is simulated follows from it and the seed (%d). Do not edit: run the command again.", r.When, r.Machine, r.Load, r.Plan.Seed)
	b.WriteString("![tokens a second by nodes, for each way to wire them](scale.svg)\n\n")
	b.WriteString("| wiring | saturates | tokens/s there | what to change there |\n| --- | --- | ---: | --- |\n")
	for _, s := range r.Simulated {
		at, most := "not up to "+fmt.Sprint(r.Plan.most())+" nodes", ""
		if s.Saturates > 0 {
			bound, _ := Bound(c, d, s.Topology, s.Saturates)
			at, most = fmt.Sprintf("from %d nodes on: %s", s.Saturates, s.Limit), thousands(bound)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Topology, at, most, change(&s))
	}
	b.WriteString("\n")
	p("A page whose queue is full is left exact, or the sender keeps it: a saturated part costs compression, not answers.")
	b.WriteString("## Measured, and predicted\n\n")
	p("One, two and four `semproxy serve` in one queue group, each on at most %d of the machine's %d cores, between three NATS servers in a cluster and three Redis masters in a cluster, %s. Senders take the next page of the demo (%.2f MB, each one different) as soon as they have the reply. Everything shares the machine's cores; \"free\" is what other programs left of them. The prediction takes the processor time of a page from the run with one sidecar, and the latency and its spread from the run with one page at a time; so the rows with one sidecar only show that it adds up, and what it says of more sidecars it has not seen.",
		r.Rows[0].Machine.SidecarCores, r.Rows[0].Machine.Cores, r.where(), float64(c.PageBytes)/1e6)
	r.measured().markdown(&b)
	p("What a page takes: processor time in ms, of all processes of a part together, and what the servers received.")
	r.used().markdown(&b)
	p("All of it shares the machine's free cores, so more sidecars give more pages a second only as long as the one core of a sidecar is what limits. What says something of more machines is what a page takes of each part, and how little that grows with the number of sidecars. The 99th percentile holds what other programs took away, which the prediction has as an average only.")
	if l := r.Leaf; l != nil {
		bytes := "was not counted, without network namespaces"
		if r.Namespaces {
			bytes = fmt.Sprintf("was %.0f bytes a page", float64(l.Costs.NATSBytes))
		}
		p("The last row is two nodes, each with a NATS server of its own that is a leaf node of the three, a sidecar and half of the senders: %.1f pages/s, 99th percentile %s ms. A page from outside is served, so the queue group is one; a page of a node goes to the node's own sidecar, and what the three shared servers received %s. The simulation says that a page takes %s ms of a node's own NATS server; measured are %s ms.",
			l.Pages, ms(l.P99), bytes, ms(time.Duration(float64(c.NATS)/c.hops())), ms(l.Costs.NATS))
	}
	b.WriteString("## Simulated\n\n")
	r.assumptions(p, &b)
	for i := range r.Simulated {
		s := &r.Simulated[i]
		fmt.Fprintf(&b, "### %s%s\n\n", strings.ToUpper(string(s.Topology)[:1]), string(s.Topology)[1:])
		p("%s. %s", explain(s.Topology), s.why(r))
		r.simulated(s).markdown(&b)
	}
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
}

func (r *Report) assumptions(p func(string, ...any), b *strings.Builder) {
	d, c := &r.Plan.Deployment, &r.Costs
	p("`semproxy-bench scale --seed %d` simulates page by page: each takes its turn at links, cores and threads, first come, first served. The command's flags change what is assumed:", r.Plan.Seed)
	for _, line := range []string{
		fmt.Sprintf("Each node sends %s tokens a second at random times, of %s bytes each (%.1f tokens a page), and has %d cores for its sidecar and at most %d pages under way.",
			thousands(d.NodeTokens), thousands(float64(d.TokenBytes)), float64(c.PageBytes)/float64(d.TokenBytes), d.NodeCores, d.Held),
		fmt.Sprintf("A page takes of each part what it took here (%s), on any core, around that mean with a spread of %.2f (of the logarithm).", Cores, c.Spread),
		fmt.Sprintf("Links carry %.0f Gbit/s each way and take %.0f us. A NATS server has %d cores, Redis one thread a server.", d.LinkBits/1e9, d.LinkDelay*1e6, d.NATSCores),
		fmt.Sprintf("A message passes %.2f of the three NATS servers on average, as measured.", c.hops()),
		"Pages, replies and objects are of one size. No page is known already; no tenant is larger than another. A tenant's account lies on one Redis server; that it may be the busiest is not simulated.",
		"Nothing fails, and nothing but pages is on the network. NATS clusters of more than three servers are not simulated.",
	} {
		b.WriteString(strings.ReplaceAll(wrap("- "+line), "\n", "\n  ") + "\n")
	}
	b.WriteString("\n")
}

// change is what to change where a topology saturates.
func change(s *Simulated) string {
	switch s.Limit {
	case NATSLinks, NATSCPU, NodeLinks:
		return "a NATS leaf node (or the sidecar's own server, or shared memory) on each node: pages stay there"
	case RedisCPU, RedisLinks:
		return "hash tenants over several Redis clusters, or a Redis on each node"
	case Sidecars:
		return "more cores or a GPU for the sidecar"
	}
	return ""
}

func explain(t Topology) string {
	return map[Topology]string{
		Shared:  "Pages cross the network to one of three NATS servers, from there to any node's sidecar, and their objects lie in one Redis of three servers",
		Leaf:    "Each node has a NATS server of its own, joined to the others as a leaf node: its pages go to its own sidecar. Objects lie in one Redis of three servers",
		Hashed:  "The same, and each tenant has one of several Redis clusters of three servers",
		PerNode: "The same, and each node has a Redis of its own: a page that another node has compressed is compressed once more",
	}[t]
}

// why says what limits, in figures.
func (s *Simulated) why(r *Report) string {
	if s.Saturates == 0 {
		text := fmt.Sprintf("Nothing saturates up to %d nodes", r.Plan.most())
		if s.Topology == Hashed {
			text += fmt.Sprintf(", with a cluster for every %d nodes", r.Plan.Deployment.GroupNodes)
		}
		return text + "."
	}
	for _, one := range demands(&r.Costs, &r.Plan.Deployment, s.Topology, s.Saturates) {
		if one.resource == s.Limit {
			return fmt.Sprintf("From %d nodes on the limit is %s: a page takes %.2f ms of it, and there are %.0f of it, so %s pages a second are the most.",
				s.Saturates, s.Limit, 1e3*one.seconds, one.units, thousands(one.units/one.seconds))
		}
	}
	return ""
}

func (t *table) markdown(b *strings.Builder) {
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(t.heads)
	rule := make([]string, len(t.heads))
	for i := range rule {
		rule[i] = "---:"
		for _, l := range t.lines {
			if strings.Trim(l[i], "0123456789.,+-% ") != "" {
				rule[i] = "---"
			}
		}
	}
	line(rule)
	for _, l := range t.lines {
		line(l)
	}
	b.WriteString("\n")
}

// wrap breaks a paragraph into lines of at most 120 characters.
func wrap(text string) string {
	const most = 118
	var b strings.Builder
	length := 0
	for _, word := range strings.Fields(text) {
		switch n := len([]rune(word)); {
		case length == 0:
			length = n
		case length+1+n > most:
			b.WriteByte('\n')
			length = n
		default:
			b.WriteByte(' ')
			length += 1 + n
		}
		b.WriteString(word)
	}
	return b.String()
}
