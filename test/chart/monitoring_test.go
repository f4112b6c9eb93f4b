package chart

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql/parser"
)

// manual holds what docs/reference/telemetry.md lists: metrics as /metrics shows them, and attributes as labels.
type manual struct {
	metrics map[string]string // name on /metrics -> kind
	labels  []string
}

func readManual(t *testing.T) manual {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	m := manual{metrics: map[string]string{}, labels: []string{"namespace", "pod", "le"}}
	for _, row := range regexp.MustCompile("(?m)^\\| `[a-z0-9._]+` \\| `([a-z0-9_]+)` \\| `([a-z]+)`").FindAllStringSubmatch(string(text), -1) {
		m.metrics[row[1]] = row[2]
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9._]+)` \\| (?:string|int|double) \\|").FindAllStringSubmatch(string(text), -1) {
		m.labels = append(m.labels, strings.ReplaceAll(row[1], ".", "_"))
	}
	if len(m.metrics) < 30 || len(m.labels) < 40 {
		t.Fatalf("docs/reference/telemetry.md has %d metrics and %d attributes: its tables have changed", len(m.metrics), len(m.labels))
	}
	return m
}

// check parses a query and holds its metrics and labels against the manual.
func (m manual) check(t *testing.T, query string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%q: %v", query, err)
		return
	}
	known := func(label string) {
		if !slices.Contains(m.labels, label) {
			t.Errorf("%q: docs/reference/telemetry.md has no label %s", query, label)
		}
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			name, part := n.Name, ""
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, ok := strings.CutSuffix(name, suffix); ok && m.metrics[name] == "" {
					name, part = base, suffix
				}
			}
			kind := m.metrics[name]
			if kind == "" || (kind == "histogram") != (part != "") {
				t.Errorf("%q: docs/reference/telemetry.md has no metric %s of that kind (%q)", query, n.Name, kind)
			}
			for _, l := range n.LabelMatchers {
				if l.Name != "__name__" {
					known(l.Name)
				}
			}
		case *parser.AggregateExpr:
			for _, l := range n.Grouping {
				known(l)
			}
		}
		return nil
	})
}

func TestEveryMetricOfTheDashboardExists(t *testing.T) {
	m := readManual(t)
	text, ok := at(find(t, objects(t, render(t, "--set=dashboard.enabled=true")), "ConfigMap", "demo-semproxy-dashboard"), "data", "semproxy.json").(string)
	if !ok {
		t.Fatal("no dashboard")
	}
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			m.check(t, strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(q.Expr))
			for _, l := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if !slices.Contains(m.labels, l[1]) {
					t.Errorf("%s: legend %q: no such label", p.Title, q.LegendFormat)
				}
			}
			shown += q.Expr
		}
	}
	for name := range m.metrics {
		if !strings.Contains(shown, name) {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// Every alert leads to a heading of the runbook that says what to do.
func TestEveryAlertHasItsPlaceInTheRunbook(t *testing.T) {
	manual, err := os.ReadFile("../../docs/how-to/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, o := range objects(t, render(t, "--set=prometheusRule.enabled=true,gpu.access=visibleDevices")) {
		if o["kind"] != "PrometheusRule" {
			continue
		}
		for _, group := range at(o, "spec", "groups").([]any) {
			for _, r := range group.(object)["rules"].([]any) {
				n++
				name := fmt.Sprint(r.(object)["alert"])
				url := fmt.Sprint(at(r, "annotations", "runbook_url"))
				if !strings.HasSuffix(url, "/docs/how-to/runbook.md#"+strings.ToLower(name)) || !strings.Contains(string(manual), "\n### "+name+"\n") {
					t.Errorf("%s: got the URL %s, want a heading of docs/how-to/runbook.md", name, url)
				}
			}
		}
	}
	if n < 10 {
		t.Errorf("got %d alerts", n)
	}
}

func TestMonitorsAreThoseOfTheOperator(t *testing.T) {
	m := readManual(t)
	all := objects(t, render(t, "--set=podMonitor.enabled=true,prometheusRule.enabled=true,gpu.access=visibleDevices,planes.split=true"))
	docs, err := os.ReadFile("../../docs/how-to/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	var rule monitoring.PrometheusRule
	convert(t, find(t, all, "PrometheusRule", "demo-semproxy"), &rule)
	for _, g := range rule.Spec.Groups {
		if len(g.Rules) < 9 {
			t.Errorf("got %d alerts", len(g.Rules))
		}
		for _, r := range g.Rules {
			m.check(t, r.Expr.StrVal)
			if !strings.Contains(string(docs), "`"+r.Alert+"`") {
				t.Errorf("docs/how-to/kubernetes.md does not explain %s", r.Alert)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: wants a summary, a description and a severity", r.Alert)
			}
		}
	}
	var monitor monitoring.PodMonitor
	convert(t, find(t, all, "PodMonitor", "demo-semproxy"), &monitor)
	var in struct {
		Sidecar, PagePlane struct{ Ports []struct{ Name string } }
	}
	decode(t, at(find(t, all, "ConfigMap", "demo-semproxy-injection"), "data", "injection.yaml").(string), &in)
	ports := slices.Concat(in.Sidecar.Ports, in.PagePlane.Ports)
	for _, e := range monitor.Spec.PodMetricsEndpoints {
		if !slices.ContainsFunc(ports, func(p struct{ Name string }) bool { return e.Port != nil && p.Name == *e.Port }) {
			t.Errorf("the monitor's port %v is none of the sidecar's %v", e.Port, ports)
		}
	}
	if len(monitor.Spec.PodMetricsEndpoints) != 2 {
		t.Errorf("got %d endpoints, want both planes'", len(monitor.Spec.PodMetricsEndpoints))
	}
}
