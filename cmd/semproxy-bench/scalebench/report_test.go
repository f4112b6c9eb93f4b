package scalebench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func report(t *testing.T) *Report {
	t.Helper()
	plan := DefaultPlan()
	plan.Nodes, plan.Seconds = []int{1, 8, 64}, 0.3
	rep := &Report{When: "2026-01-01", Machine: "a machine", Load: "0.5", Namespaces: true, Plan: plan}
	for _, w := range works {
		alone, busy := *measured(), *measured()
		busy.Latency = 60 * time.Millisecond
		rep.Rows = append(rep.Rows,
			Row{Work: w.work, Sidecars: 1, Clients: 1, Pages: 60, P50: alone.Latency, P99: 2 * alone.Latency, Costs: alone, Machine: Machine{2, 2, 1}},
			Row{Work: w.work, Sidecars: 2, Clients: 8, Pages: 150, P50: busy.Latency, P99: 2 * busy.Latency, Costs: busy, Machine: Machine{2, 1.5, 1}})
	}
	if err := rep.Simulate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return rep
}

// What is measured stands beside what is predicted, every topology has its table, and the same report is written the same twice.
func TestTheManualsPage(t *testing.T) {
	t.Parallel()
	var first, second, svg, text bytes.Buffer
	a := report(t)
	if err := errors.Join(a.WriteMarkdown(&first), report(t).WriteMarkdown(&second), a.WriteSVG(&svg), a.WriteTables(&text)); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("the same measurements gave two pages")
	}
	for _, want := range append([]string{"predicted", "Each node sends 2,000 tokens a second", "leaf node", "hash tenants", "scale.svg", NATSLinks, RedisCPU}, Cores, Bits) {
		if !strings.Contains(first.String(), want) {
			t.Errorf("got no %q in\n%s", want, first.String())
		}
	}
	for _, topology := range Topologies {
		if !strings.Contains(text.String(), string(topology)+":") || !strings.Contains(svg.String(), string(topology)) {
			t.Errorf("%s: got no table or no line", topology)
		}
	}
	for line := range strings.Lines(first.String()) {
		if !strings.HasPrefix(line, "|") && len([]rune(line)) > 121 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture: %v", err)
		}
	}
}

func TestTooFewMeasurementsAreRefused(t *testing.T) {
	rep := report(t)
	rep.Rows = rep.Rows[:1]
	if err := rep.Simulate(t.Context()); err == nil {
		t.Error("one size: got nil, want an error")
	}
}

// No two pages are the same, and each is one.
func TestPagesDiffer(t *testing.T) {
	p, err := openPages()
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.next(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.next(nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, b) || len(a) < p.size/2 {
		t.Errorf("got pages of %d and %d bytes, want two that differ", len(a), len(b))
	}
}
