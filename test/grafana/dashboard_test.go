package grafana

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// panel is one of the dashboard.
type panel struct {
	ID          int
	Type, Title string
	Description string
	Targets     []struct{ Expr string }
}

// sometimesEmpty marks the description of a panel that shows nothing where all is well, or where a part is not there.
const sometimesEmpty = "Empty "

func TestEveryPanelShowsSomethingOrSaysWhyItIsEmpty(t *testing.T) {
	program := need(t, "prometheus")
	text, err := os.ReadFile("../../helm/semproxy/dashboards/semproxy.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/reference/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	s := startSidecar(t)
	p := startPrometheus(t, program, s.admin)
	for range 4 { // counters grow between scrapes
		s.traffic(t)
		time.Sleep(2 * scrape)
	}
	variables := strings.NewReplacer("$__rate_interval", "30s", "$__range", "1m", "$namespace", ".*", "$tenant", ".*")
	asked := 0
	for _, one := range dashboard.Panels {
		if one.Type == "row" {
			continue
		}
		shown := false
		for _, q := range one.Targets {
			asked++
			n := p.query(t, variables.Replace(q.Expr))
			shown = shown || n > 0
			if n == 0 {
				exists(t, one.Title, q.Expr, string(manual))
			}
		}
		switch says := strings.Contains(one.Description, sometimesEmpty); {
		case !shown && !says:
			t.Errorf("%s: shows nothing after real traffic, and does not say why (%q in its description)", one.Title, sometimesEmpty)
		case shown && says:
			t.Logf("%s: is said to be empty at times, and shows something", one.Title)
		}
	}
	if asked < 40 {
		t.Errorf("got %d queries, want at least 40", asked)
	}
	if n := p.query(t, `sum(rate(semproxy_nothing_of_that_name_total[30s]))`); n != 0 {
		t.Errorf("a metric that does not exist: got %d series, want none", n)
	}
}

var metric = regexp.MustCompile(`\b((?:semproxy|gen_ai|http)_[a-z_]+?)(?:_bucket|_sum|_count)?\{`)

// exists wants a query's metrics in the manual, whose table is held against the code.
func exists(t *testing.T, title, query, manual string) {
	t.Helper()
	for _, m := range metric.FindAllStringSubmatch(query, -1) {
		if !strings.Contains(manual, "| `"+m[1]+"` |") {
			t.Errorf("%s: there is no metric %s", title, m[1])
		}
	}
}
