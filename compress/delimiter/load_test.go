package delimiter

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func mustLoad(t testing.TB, name string) *Table {
	t.Helper()
	table, err := LoadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatalf("LoadFile(%s): %v", name, err)
	}
	return table
}

func TestEveryKindOfVocabularyIsDecodedToText(t *testing.T) {
	type want struct {
		id    int64
		text  string
		class Class
	}
	tests := []struct {
		file string
		size int
		want []want
	}{
		{"bytelevel.json", 11, []want{
			{0, "!", Sentence}, {1, ",", Clause}, {2, "a", None}, {3, " the", None}, {4, " Lord", None},
			{5, "\n\n", Line}, {6, ".\n", Sentence | Line}, {7, "\xe9", None}, {8, "\xe4\xb8", None},
			{9, "<|end_of_text|>", None}, {10, "  \n", Line},
		}},
		{"llama2.json", 12, []want{
			{0, "<unk>", None}, {3, "\n", Line}, {4, "\xe4", None}, {5, " the", None}, {6, " ", None},
			{7, "?", Sentence}, {8, ";", Clause}, {9, " ,", Clause}, {10, "lord", None}, {11, ".", Sentence},
		}},
		{"unigram.json", 7, []want{{3, " and", None}, {4, ".", Sentence}, {5, " :", Clause}, {6, "\n", Line}}},
		{"plain.json", 4, []want{{0, "\n", Line}, {1, " the", None}, {2, ":", Clause}, {3, "Ġ", None}}},
		{"clip.json", 3, []want{{0, "the ", None}, {1, ". ", Sentence}, {2, "lo", None}}},
		{"gpt2_old.json", 3, []want{{0, " and", None}, {1, "\n", Line}, {2, "<|endoftext|>", None}}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			table := mustLoad(t, tt.file)
			if got := table.Size(); got != tt.size {
				t.Errorf("Size() = %d, want %d", got, tt.size)
			}
			for _, w := range tt.want {
				if got, ok := table.Text(w.id); !ok || got != w.text {
					t.Errorf("Text(%d) = %q, %v, want %q", w.id, got, ok, w.text)
				}
				if got := table.Class(w.id); got != w.class {
					t.Errorf("Class(%d) = %v, want %v", w.id, got, w.class)
				}
			}
		})
	}
}

func TestByteLevelCoversEveryByteOnce(t *testing.T) {
	if len(byteOf) != 256 {
		t.Fatalf("got %d runes, want 256", len(byteOf))
	}
	seen := make(map[byte]bool)
	for _, b := range byteOf {
		seen[b] = true
	}
	if len(seen) != 256 {
		t.Errorf("got %d bytes, want 256", len(seen))
	}
}

func TestUnknownIDsHaveNoClassAndNoText(t *testing.T) {
	table, err := Load(strings.NewReader(`{"model":{"type":"BPE","vocab":{".":5}},"decoder":{"type":"Fuse"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{-1, 0, 4, 6, 1 << 40, -1 << 63} {
		if got := table.Class(id); got != None {
			t.Errorf("Class(%d) = %v, want none", id, got)
		}
		if text, ok := table.Text(id); ok {
			t.Errorf("Text(%d) = %q, want nothing", id, text)
		}
	}
}

func TestMarkBoundaryAppendsOneBytePerToken(t *testing.T) {
	table := mustLoad(t, "llama2.json")
	ids := []int64{5, 10, 9, 99, 3, -4}
	got := table.MarkBoundary([]byte{7}, len(ids), func(i int) int64 { return ids[i] })
	want := []byte{7, 0, 0, 1, 0, 1, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	buf := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(10, func() {
		table.MarkBoundary(buf, len(ids), func(i int) int64 { return ids[i] })
	}); n != 0 {
		t.Errorf("allocations with enough capacity: got %v, want 0", n)
	}
}

func TestBadTokenizersAreRefusedWithACode(t *testing.T) {
	bpe := func(vocab string) string { return `{"model":{"type":"BPE","vocab":` + vocab + `}}` }
	dec := func(decoder string) string {
		return `{"decoder":` + decoder + `,"model":{"type":"BPE","vocab":{"a":0}}}`
	}
	tests := []struct{ name, input, code string }{
		{"empty file", ``, CodeBad},
		{"cut off", `{"model":{"type":"BPE","vocab":{"a":0`, CodeBad},
		{"not an object", `[]`, CodeBad},
		{"no model", `{"added_tokens":[]}`, CodeBad},
		{"no vocabulary", `{"model":{"type":"BPE"}}`, CodeBad},
		{"empty vocabulary", bpe(`{}`), CodeBad},
		{"vocabulary of the wrong form", bpe(`[["a",0]]`), CodeBad},
		{"unigram of the wrong form", `{"model":{"type":"Unigram","vocab":{"a":0}}}`, CodeBad},
		{"unigram without a score", `{"model":{"type":"Unigram","vocab":[["a"]]}}`, CodeBad},
		{"unigram piece that is a number", `{"model":{"type":"Unigram","vocab":[[1,2]]}}`, CodeBad},
		{"id is null", bpe(`{"a":null}`), CodeBad},
		{"id is text", bpe(`{"a":"0"}`), CodeBad},
		{"id is a fraction", bpe(`{"a":0.5}`), CodeBad},
		{"id is negative", bpe(`{"a":-1}`), CodeBad},
		{"id beyond the limit", bpe(fmt.Sprintf(`{"a":%d}`, MaxVocabulary)), CodeTooLarge},
		{"two tokens with one id", bpe(`{"a":0,"b":0}`), CodeBad},
		{"added token without id", `{"added_tokens":[{"content":"x"}],"model":{"type":"BPE","vocab":{"a":0}}}`, CodeBad},
		{"added token beyond the limit", fmt.Sprintf(`{"added_tokens":[{"id":%d,"content":"x"}],"model":{"type":"BPE","vocab":{"a":0}}}`, MaxVocabulary), CodeTooLarge},
		{"word level", `{"model":{"type":"WordLevel","vocab":{"a":0}}}`, CodeUnsupported},
		{"old word piece without a type", `{"model":{"max_input_chars_per_word":100,"vocab":{"a":0}}}`, CodeUnsupported},
		{"unknown decoder", dec(`{"type":"CTC"}`), CodeUnsupported},
		{"replacement by pattern", dec(`{"type":"Replace","pattern":{"Regex":"a"},"content":""}`), CodeUnsupported},
		{"replacement that grows", dec(`{"type":"Replace","pattern":{"String":"a"},"content":"aaaa"}`), CodeUnsupported},
		{"replacement of nothing", dec(`{"type":"Replace","pattern":{"String":""},"content":""}`), CodeUnsupported},
		{"decoder nested too deep", dec(strings.Repeat(`{"type":"Sequence","decoders":[`, 40) + strings.Repeat(`]}`, 40)), CodeTooLarge},
		{"decoder too long", dec(`{"type":"Fuse","x":"` + strings.Repeat("x", maxDecoderBytes) + `"}`), CodeTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(strings.NewReader(tt.input))
			checkCode(t, err, tt.code)
		})
	}
	t.Run("word piece file", func(t *testing.T) {
		_, err := LoadFile("testdata/wordpiece.json")
		checkCode(t, err, CodeUnsupported)
	})
	t.Run("file that is not there", func(t *testing.T) {
		_, err := LoadFile(filepath.Join(t.TempDir(), "tokenizer.json"))
		checkCode(t, err, CodeUnreadable)
	})
}

func TestAFileOverTheLimitIsNotReadToItsEnd(t *testing.T) {
	r := &endless{}
	_, err := Load(r)
	checkCode(t, err, CodeTooLarge)
	if r.n > MaxFileBytes+(1<<20) {
		t.Errorf("read %d bytes, want about %d", r.n, MaxFileBytes)
	}
}

// endless is a reader that never ends; what it reads does not matter.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	e.n += len(p)
	return len(p), nil
}

func checkCode(t *testing.T, err error, want string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an error with code %s", err, want)
	}
	if e.Code() != want || e.Error() == "" {
		t.Errorf("got %s (%v), want %s", e.Code(), e, want)
	}
}

func TestClassNamesItsKinds(t *testing.T) {
	for c, want := range map[Class]string{None: "none", Sentence: "sentence", Sentence | Line: "sentence|line", Clause: "clause"} {
		if got := c.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
