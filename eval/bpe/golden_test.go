package bpe_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval/bpe"
)

// The golden ids were made by the tokenizer that the model was trained with.
func TestEncodesAsTheTrainingTokenizerDid(t *testing.T) {
	dir := "../../../shared/data/tinylm"
	lines, err := os.ReadFile(filepath.Join(dir, "tokenizer_golden.jsonl"))
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "shared") {
			t.Fatalf("SEMPROXY_TEST_REQUIRE names shared, but %v", err)
		}
		t.Skip("the measuring data are not here")
	}
	data, err := os.ReadFile("../../configs/demo/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	e, err := bpe.New(data)
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	scan := bufio.NewScanner(bytes.NewReader(lines))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var c struct {
			Text string  `json:"text"`
			IDs  []int32 `json:"ids"`
		}
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases++
		if got := e.Encode(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("%.60q...: got %v, want %v", c.Text, got, c.IDs)
		}
	}
	if cases != 60 {
		t.Errorf("got %d golden texts, want 60", cases)
	}
}
