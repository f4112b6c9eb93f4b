package main

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/proxybench"
)

// The figures are not judged here: what a machine gives in a few milliseconds proves nothing. Every measurement must work,
// through real processes; nginx and Caddy take part where they are installed.
func TestBenchProxyMeasuresEveryWay(t *testing.T) {
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	quick := []string{
		"proxy", "--semproxy", filepath.Join(dir, "semproxy"), "--engine", filepath.Join(dir, "semproxy-bench"), "--connections", "1,3", "--think", "0s,1ms", "--time", "60ms", "--streams", "20", "--hold", "1ms",
	}
	out, err := cli(t, append(quick, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	machine, rest, _ := strings.Cut(out, "\n")
	if !strings.Contains(machine, `"Cores":`) {
		t.Errorf("the first line: got %s, want the machine", machine)
	}
	rows := map[string]int{}
	for line := range strings.Lines(rest) {
		var r proxybench.Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows[r.Measure+" "+r.Path]++
		if r.Measure == proxybench.IdleStreams {
			if r.Streams != 20 || runtime.GOOS == "linux" && (r.Before <= 0 || r.Open <= 0 || r.After <= 0) {
				t.Errorf("row: got %+v", r)
			}
			continue
		}
		if r.Requests < 1 || r.P50 <= 0 || r.P99 < r.P50 || r.Measure != proxybench.FirstByte && r.Ratio <= 0 {
			t.Errorf("row: got %+v", r)
		}
	}
	for row, n := range map[string]int{
		"throughput direct": 4, "throughput semproxy": 4, "half load semproxy": 1, "first byte direct": 1, "first byte semproxy": 1,
		"idle streams semproxy": 1, "idle streams direct": 0,
	} {
		if rows[row] != n {
			t.Errorf("%s: got %d rows, want %d", row, rows[row], n)
		}
	}
	text, err := cli(t, append(quick, "--nginx", "", "--caddy", "no-such-program", "--streams", "0")...)
	if err != nil || !strings.Contains(text, "half load") || !strings.Contains(text, "of direct") || strings.Contains(text, "idle streams") || strings.Contains(text, "nginx") {
		t.Errorf("table: %v\n%s", err, text)
	}
	for _, args := range [][]string{{"--connections", "0"}, {"--think", "-1s"}, {"--time", "0s"}, {"--streams", "100000000"}, {"--semproxy", "/nowhere"}} {
		if _, err := cli(t, append(quick, args...)...); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
}
