package delimiter

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzLoad holds what a table promises whatever the file: an error has a code; a table's marks follow its texts; the texts
// together are no longer than the file.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := Load(bytes.NewReader(data))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code() == "" {
				t.Fatalf("got %v, want an error with a code", err)
			}
			return
		}
		total := 0
		for id := range int64(table.Size()) {
			text, ok := table.Text(id)
			marked := table.Class(id) != None
			if want := ok && strings.ContainsAny(text, ".,;:!?\n"); marked != want {
				t.Fatalf("id %d, %q: marked %v, want %v", id, text, marked, want)
			}
			total += len(text)
		}
		// A broken UTF-8 byte of the file becomes a rune of three.
		if total > 3*len(data) {
			t.Errorf("texts take %d bytes of a file of %d", total, len(data))
		}
	})
}
