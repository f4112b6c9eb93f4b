package delimiter

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
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
			want := ok && strings.ContainsFunc(text, func(r rune) bool {
				return strings.ContainsRune(".,;:!?\n\r\u0085\u2028\u2029", r) || unicode.In(r, unicode.STerm, unicode.Terminal_Punctuation, moreSentence, moreClause)
			})
			if marked != want {
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

// FuzzMarkBoundary cuts a text anywhere, inside characters too: the tokens that are marked are those in which the text's marks
// end, whatever the pieces.
func FuzzMarkBoundary(f *testing.F) {
	f.Add("東京は日本の首都です。人口は多い、そして広い！", []byte{1, 2, 1, 3, 1})
	f.Add("a.b\xe3\x80c\xe3\x80\x82", []byte{2, 1})
	f.Add("สวัสดี ครับ ok ไทย", []byte{3, 4, 2})
	f.Fuzz(func(t *testing.T, text string, cuts []byte) {
		table := new(Table)
		end := map[int]int{} // where a byte's token is
		n := 0
		for rest, at := text, 0; rest != ""; n++ {
			size := len(rest)
			if len(cuts) > 0 {
				size = min(size, 1+int(cuts[n%len(cuts)])%7)
			}
			table.set(n, rest[:size], false)
			for range size {
				end[at] = n
				at++
			}
			rest = rest[size:]
		}
		got := table.MarkBoundary(nil, n, func(i int) int64 { return int64(i) })
		want := make([]byte, n)
		for at := 0; at < len(text); {
			r, size := utf8.DecodeRuneInString(text[at:])
			at += size
			if classOf(r) != None {
				want[end[at-1]] = 1
			}
		}
		for i := range got {
			if want[i] > got[i] || got[i] > want[i] && !strings.ContainsFunc(text, isSpaceless) {
				t.Fatalf("%q as %d tokens: got %v, want %v", text, n, got, want)
			}
		}
	})
}
