package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/scalebench"
	"github.com/semproxy/semproxy/store/redistest"
)

// The figures are not judged here: what a machine gives in a fraction of a second proves nothing. Real servers and sidecars must work
// together, with and, where they can be had, in network namespaces, and leave nothing behind.
func TestScaleMeasuresRealSidecarsAndSimulates(t *testing.T) {
	redistest.Need(t)
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	bench := filepath.Join(dir, "semproxy-bench")
	ways := map[string][]string{"loopback": {"--no-namespaces"}}
	if _, err := scalebench.Namespaced(bench); err == nil {
		ways["namespaces"] = nil
	} else {
		t.Logf("namespaces are left out: %v", err)
	}
	for name, more := range ways {
		t.Run(name, func(t *testing.T) {
			doc := filepath.Join(t.TempDir(), "scale.md")
			out, err := cli(t, append([]string{"scale", "--semproxy", filepath.Join(dir, "semproxy"), "--nats", bench, "--sidecars", "2", "--clients", "3",
				"--time", "300ms", "--nodes", "1,40", "--seconds", "0.2", "--doc", doc, "--json"}, more...)...)
			if err != nil {
				t.Fatal(err)
			}
			var rep scalebench.Report
			if err := json.Unmarshal([]byte(out), &rep); err != nil {
				t.Fatal(err)
			}
			if rep.Namespaces != (name == "namespaces") || len(rep.Rows) != 4 || rep.Leaf == nil || len(rep.Predicted) != 4 || len(rep.Simulated) != len(scalebench.Topologies) {
				t.Fatalf("report: got %+v", rep)
			}
			for _, r := range rep.Rows {
				c := r.Costs
				if r.Pages <= 0 || r.P50 <= 0 || r.P99 < r.P50 || c.CoreBytes <= 0 || c.CoreBytes >= c.PageBytes || c.Sidecar <= 0 {
					t.Errorf("row: got %+v", r)
				}
				if rep.Namespaces && (c.NATSBytes < c.PageBytes || c.RedisBytes < c.CoreBytes/2) {
					t.Errorf("bytes of a page of %d: got %d at NATS, %d at Redis", c.PageBytes, c.NATSBytes, c.RedisBytes)
				}
			}
			if c := rep.Leaf.Costs; rep.Namespaces && c.NATSBytes > c.PageBytes/10 {
				t.Errorf("leaf nodes: the shared NATS received %d bytes of each page of %d, want hardly any", c.NATSBytes, c.PageBytes)
			}
			for _, name := range []string{doc, strings.TrimSuffix(doc, ".md") + ".svg"} {
				if info, err := os.Stat(name); err != nil || info.Size() == 0 {
					t.Errorf("%s: got %v", name, err)
				}
			}
		})
	}
	if _, err := cli(t, "scale", "--semproxy", filepath.Join(dir, "semproxy"), "--nats", bench, "--no-namespaces", "--clients", "0"); err == nil {
		t.Error("no clients: got no error")
	}
}
