package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Every way is measured on every page of the demo; what loses nothing keeps most bytes, and what merges keeps as many as it should.
func TestCodecsMeasuresEveryWay(t *testing.T) {
	var out, said bytes.Buffer
	if err := run(t.Context(), []string{"codecs", "--time", "1ms", "-o", "json"}, &out, &said); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	bounds := map[string][2]float64{
		"memory copy": {1, 1}, "LZ4": {0.9, 1.01}, "zstd, fastest": {0.8, 1}, "zstd, better": {0.7, 0.95}, "8 bits": {0.5, 0.54}, "4 bits": {0.25, 0.29},
		"weighted 50 %": {0.45, 0.53}, "weighted 25 %": {0.2, 0.28}, "weighted 50 %, 8 bits": {0.25, 0.3}, "weighted 25 %, 4 bits": {0.05, 0.1},
	}
	rows := 0
	for line := range strings.Lines(out.String()) {
		var r codecRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows++
		if b, known := bounds[r.Way]; !known || r.Bytes < b[0] || r.Bytes > b[1] || r.Rate <= 0 {
			t.Errorf("%s by %s: %.3f of the bytes at %.0f bytes/s, want %v", r.Page, r.Way, r.Bytes, r.Rate, b)
		}
		if lossy := strings.Contains(r.Way, "weighted") || strings.Contains(r.Way, "bits"); lossy != (r.Measured && r.Error > 0) {
			t.Errorf("%s by %s: measured %v, error %v", r.Page, r.Way, r.Measured, r.Error)
		}
	}
	if rows != 3*len(bounds) {
		t.Errorf("got %d rows, want %d", rows, 3*len(bounds))
	}
	if err := run(t.Context(), []string{"codecs", "codecs_test.go"}, &out, &said); err == nil || !strings.Contains(err.Error(), "page.") {
		t.Errorf("a file that is no page: %v", err)
	}
}
