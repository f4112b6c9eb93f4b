package chart

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// minutes is how long an alert is given before anything happens, and after.
const minutes = 20

// alerts wants the alert to fire, by Prometheus's own engine, with the rule's own duration and with a label of that value ("": of
// any), and not to have fired before. What /metrics said before is scraped for twenty minutes, then what it says during the
// fault; of several scrapes during it the last two say how the fault goes on.
func alerts(t *testing.T, manifests []object, alert, label, before string, during ...string) {
	t.Helper()
	query, wait := rule(t, manifests, alert)
	storage := promqltest.LoadedStorage(t, scrapes(t, samples(before), during))
	engine := promqltest.NewTestEngine(t, false, 0, 1<<20)
	in := 0 // minutes in a row in which the query has a result
	for minute := range 2 * minutes {
		q, err := engine.NewInstantQuery(t.Context(), storage, nil, query, time.Unix(int64(minute)*60, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, err := q.Exec(t.Context()).Vector()
		if err != nil {
			t.Fatal(err)
		}
		found := holds(got, label)
		q.Close()
		if in++; !found {
			in = 0
		}
		switch fires := in > wait; {
		case fires && minute < minutes:
			t.Errorf("%s fires before anything has happened", alert)
			return
		case fires:
			return
		}
	}
	t.Errorf("%s{%s} does not fire; /metrics says:\n%s", alert, label, during[len(during)-1])
}

func holds(v promql.Vector, label string) bool {
	for _, s := range v {
		if label == "" || strings.Contains(s.Metric.String(), `"`+label+`"`) {
			return true
		}
	}
	return false
}

// rule is the expression of an alert, and for how many minutes it must hold.
func rule(t *testing.T, manifests []object, alert string) (query string, wait int) {
	t.Helper()
	var all monitoring.PrometheusRule
	convert(t, find(t, manifests, "PrometheusRule", "demo-semproxy"), &all)
	for _, r := range all.Spec.Groups[0].Rules {
		if r.Alert != alert {
			continue
		}
		if r.For != nil {
			d, err := time.ParseDuration(string(*r.For))
			if err != nil {
				t.Fatal(err)
			}
			wait = int(d.Minutes())
		}
		return r.Expr.StrVal, wait
	}
	t.Fatalf("no alert %s", alert)
	return "", 0
}

// scrapes is a load for Prometheus's test storage, one scrape a minute.
func scrapes(t *testing.T, before map[string]string, during []string) string {
	t.Helper()
	last := samples(during[len(during)-1])
	var one map[string]string
	if len(during) > 1 {
		one = samples(during[len(during)-2])
	}
	load := "load 1m\n"
	for name, value := range last {
		first := fmt.Sprintf("%sx%d", before[name], minutes-1) // and the one that is repeated
		if before[name] == "" {
			first = fmt.Sprintf("_x%d", minutes)
		}
		now, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		step := 0
		if text, there := one[name]; there {
			then, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			step = max(0, now-then)
		}
		load += fmt.Sprintf("  %s %s %d+%dx%d\n", name, first, now, step, minutes)
	}
	return load
}

var sample = regexp.MustCompile(`(?m)^(semproxy_[a-z_]+)(?:\{(.*)\})? (\d+)$`)

// samples are semproxy's counters in a text of /metrics, as Prometheus names them, with their values.
func samples(metrics string) map[string]string {
	all := map[string]string{}
	for _, m := range sample.FindAllStringSubmatch(metrics, -1) {
		labels := `namespace="llm",pod="vllm-0"` // Prometheus adds these
		if m[2] != "" {
			labels = m[2] + "," + labels
		}
		all[m[1]+"{"+labels+"}"] = m[3]
	}
	return all
}
