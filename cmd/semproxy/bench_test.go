package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy/planebench"
	"github.com/semproxy/semproxy/transport/shm"
)

// The figures are not judged here: what a machine gives in a few milliseconds proves nothing. Every path must work.
func TestBenchPlaneMeasuresEveryPath(t *testing.T) {
	out, err := cli(t, "bench", "plane", "--sizes", "64KiB", "--concurrency", "1,3", "--time", "20ms", "--json")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for line := range strings.Lines(out) {
		var r planebench.Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if r.Pages < 1 || r.Bytes <= 0 || r.P50 <= 0 || r.P99 < r.P50 || r.Size != 64<<10 || (r.Raw != "") != (r.Share > 0) {
			t.Errorf("row: got %+v", r)
		}
		rows[r.Path]++
	}
	want := 5
	if shm.Supported {
		want = 11
	}
	if len(rows) != want {
		t.Errorf("paths: got %d, want %d: %v", len(rows), want, rows)
	}
	for path, n := range rows {
		if n != 2 {
			t.Errorf("%s: got %d rows, want one for each concurrency", path, n)
		}
	}
	for _, args := range [][]string{{"--sizes", "many"}, {"--concurrency", "0"}, {"--time", "0s"}, {"--sizes", "0"}} {
		if _, err := cli(t, append([]string{"bench", "plane"}, args...)...); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
	text, err := cli(t, "bench", "plane", "--sizes", "16KiB", "--concurrency", "1", "--time", "5ms")
	if err != nil || !strings.Contains(text, "raw NATS echo") || !strings.Contains(text, "of raw") {
		t.Errorf("table: %v\n%s", err, text)
	}
}
