package dialect_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/semproxy/semproxy/proxy/dialect"
)

// sees looks at whole events; what is too long passes as it is.
type sees func(data []byte) ([]byte, bool)

func (s sees) Event(data []byte) ([]byte, bool) { return s(data) }
func (s sees) Begin()                           {}
func (s sees) Pass(p []byte) []byte             { return p }

func readAll(t *testing.T, src io.Reader, see dialect.Seer) string {
	t.Helper()
	got, err := io.ReadAll(dialect.NewEvents(io.NopCloser(src), see))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestEventsPassUnchangedHoweverTheyAreCut(t *testing.T) {
	for _, text := range []string{
		"data: one\n\ndata: two\n\ndata: [DONE]\n\n",
		"event: a\r\ndata: one\r\n\r\n: keep-alive\n\ndata:two\ndata: more\n\n",
		"data: cut off",
		"\n\ndata: after blank lines\n\n",
		"data: " + strings.Repeat("x", 3*dialect.MaxEvent) + "\n\ndata: next\n\n",
		"",
	} {
		var seen []string
		see := sees(func(data []byte) ([]byte, bool) { seen = append(seen, string(data)); return nil, false })
		if got := readAll(t, strings.NewReader(text), see); got != text {
			t.Errorf("got %.80q, want %.80q", got, text)
		}
		whole := seen
		if len(text) > 1000 {
			continue
		}
		seen = nil
		if got := readAll(t, iotest.OneByteReader(strings.NewReader(text)), see); got != text || strings.Join(seen, "|") != strings.Join(whole, "|") {
			t.Errorf("byte by byte: got %q and %q, want %q and %q", got, seen, text, whole)
		}
	}
}

func TestAnEventPassesAsSoonAsItIsWhole(t *testing.T) {
	reader, writer := io.Pipe()
	events := dialect.NewEvents(reader, sees(func(data []byte) ([]byte, bool) { return data, false }))
	go func() { _, _ = writer.Write([]byte("data: one\n\ndata: tw")) }() // and then nothing more
	buf := make([]byte, 100)
	n, err := events.Read(buf)
	if got := string(buf[:n]); got != "data: one\n\n" || err != nil {
		t.Errorf("got %q, %v, want the first event", got, err)
	}
	_ = events.Close()
}

func TestTheUsageThatNobodyAskedForIsHidden(t *testing.T) {
	in := strings.Join([]string{
		`data: {"id":"1","choices":[{"delta":{"content":"a \"usage\" b"}}],"usage":null}`,
		`data: {"id":"2","choices":[{"delta":{"content":"c"}}]}`,
		`data: {"id":"3","choices":[],"usage":{"prompt_tokens":3}}`,
		`data: [DONE]`, "",
	}, "\n\n")
	want := strings.Join([]string{
		`data: {"id":"1","choices":[{"delta":{"content":"a \"usage\" b"}}]}`,
		`data: {"id":"2","choices":[{"delta":{"content":"c"}}]}`,
		`data: [DONE]`, "",
	}, "\n\n")
	if got := readAll(t, strings.NewReader(in), &dialect.Answer{Hide: true}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: one\n\ndata: two\r\n\r\n:c\n\n"), 3)
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		see := sees(func(data []byte) ([]byte, bool) { return data, false })
		got := readAll(t, &stepReader{bytes.NewReader(text), max(1, step%64)}, see)
		if got != string(text) {
			t.Fatalf("got %q, want %q", got, text)
		}
	})
}

type stepReader struct {
	src  io.Reader
	step int
}

func (s *stepReader) Read(p []byte) (int, error) { return s.src.Read(p[:min(len(p), s.step)]) }
