package delimiter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	demo   = "../../configs/demo"
	golden = "../../../shared/data/tinylm/tokenizer_golden.jsonl"
)

// The page's boundary tensor was marked by the tokenizer that the model was trained with.
func TestMarksEqualTheBoundaryOfRealPages(t *testing.T) {
	table, err := LoadFile(filepath.Join(demo, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(demo, "*.page.safetensors"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("got %d pages (%v), want some", len(pages), err)
	}
	for _, path := range pages {
		t.Run(filepath.Base(path), func(t *testing.T) {
			ids, want := tokensAndBoundary(t, path)
			got := table.MarkBoundary(nil, len(ids), func(i int) int64 { return int64(ids[i]) })
			if !bytes.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !bytes.Contains(want, []byte{1}) {
				t.Error("the page marks nothing, so this test shows nothing")
			}
		})
	}
}

func TestTextsOfIDsGiveTheGoldenTextBack(t *testing.T) {
	f, err := os.Open(golden)
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "shared") {
			t.Fatalf("SEMPROXY_TEST_REQUIRE names shared: %v", err)
		}
		t.Skip("needs ../shared/data")
	}
	defer func() { _ = f.Close() }()
	table, err := LoadFile(filepath.Join(demo, "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<20)
	for ; scanner.Scan(); lines++ {
		var row struct {
			Text string  `json:"text"`
			IDs  []int64 `json:"ids"`
		}
		if err := json.Unmarshal(scanner.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for _, id := range row.IDs {
			text, ok := table.Text(id)
			if !ok {
				t.Fatalf("line %d: id %d has no text", lines+1, id)
			}
			got.WriteString(text)
		}
		if got.String() != row.Text {
			t.Errorf("line %d: got %q, want %q", lines+1, got.String(), row.Text)
		}
	}
	if err := scanner.Err(); err != nil || lines == 0 {
		t.Fatalf("read %d lines: %v", lines, err)
	}
}

// tokensAndBoundary reads two tensors of a page that the repository holds, so it trusts the file.
func tokensAndBoundary(t *testing.T, path string) (ids []int32, boundary []byte) {
	t.Helper()
	blob, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(blob)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(blob[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	tensor := func(name, dtype string) []byte {
		var info struct {
			DType   string    `json:"dtype"`
			Offsets [2]uint64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(header[name], &info); err != nil || info.DType != dtype {
			t.Fatalf("tensor %s: got dtype %q (%v), want %s", name, info.DType, err, dtype)
		}
		return blob[8+n+info.Offsets[0] : 8+n+info.Offsets[1]]
	}
	raw := tensor("token_ids", "I32")
	ids = make([]int32, len(raw)/4)
	if _, err := binary.Decode(raw, binary.LittleEndian, ids); err != nil {
		t.Fatal(err)
	}
	return ids, tensor("boundary", "U8")
}
