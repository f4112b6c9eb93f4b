package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/planebench"
	"github.com/semproxy/semproxy/store/redistest"
	"github.com/semproxy/semproxy/transport/shm"
)

// The figures are not judged here: what a machine gives in a few milliseconds proves nothing. Every path must work.
func TestBenchPlaneMeasuresEveryPath(t *testing.T) {
	out, err := cli(t, "plane", "--sizes", "64KiB", "--concurrency", "1,3", "--time", "20ms", "--json")
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
		if _, err := cli(t, append([]string{"plane"}, args...)...); err == nil {
			t.Errorf("%v: got no error", args)
		}
	}
	text, err := cli(t, "plane", "--sizes", "16KiB", "--concurrency", "1", "--time", "5ms")
	if err != nil || !strings.Contains(text, "raw NATS echo") || !strings.Contains(text, "of raw") {
		t.Errorf("table: %v\n%s", err, text)
	}
}

func TestBenchPlaneMeasuresTheStoreBesideTheRawClient(t *testing.T) {
	server := redistest.Start(t)
	out, err := cli(t, "plane", "--sizes", "16KiB", "--concurrency", "1", "--time", "20ms", "--json", "--redis", server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"raw redis put", "store put", "raw redis get", "store get"} {
		if !strings.Contains(out, `"path":"`+path+`"`) {
			t.Errorf("%s: got no row in\n%s", path, out)
		}
	}
	server.Kill()
	if _, err := cli(t, "plane", "--sizes", "16KiB", "--concurrency", "1", "--time", "5ms", "--redis", server.Addr); err == nil {
		t.Error("a Redis that is away: got no error")
	}
}
