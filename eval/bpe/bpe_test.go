package bpe_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval/bpe"
)

// tokenizer has the given symbols, numbered from 0, and merges.
func tokenizer(t *testing.T, symbols []string, merges, rest string) *bpe.Encoder {
	t.Helper()
	var vocab []string
	for i, s := range symbols {
		vocab = append(vocab, fmt.Sprintf("%q: %d", s, i))
	}
	e, err := bpe.New([]byte(`{"model": {"type": "BPE", "byte_fallback": true, "vocab": {` + strings.Join(vocab, ",") + `}, "merges": [` + merges + `]}` + rest + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

const llama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`

func TestSplitPatternsWithLookaheadCutAsPublished(t *testing.T) {
	// Only whole pieces are in the vocabulary, so that the ids show where the text was cut.
	for _, tc := range []struct {
		name, pre, text string
		pieces          []string
	}{
		{"GPT-2: the last space goes to the word", `{"type": "ByteLevel", "add_prefix_space": false}`, "a   b", []string{"a", "ĠĠ", "Ġb"}},
		{"GPT-2: spaces at the end stay together", `{"type": "ByteLevel", "add_prefix_space": false}`, "a  ", []string{"a", "ĠĠ"}},
		{"GPT-2: a lone newline before a word", `{"type": "ByteLevel", "add_prefix_space": false}`, "a\nb", []string{"a", "Ċ", "b"}},
		{"GPT-2: newlines before a word", `{"type": "ByteLevel", "add_prefix_space": false}`, "a\n\nb", []string{"a", "Ċ", "Ċ", "b"}},
		{"GPT-2: contraction and prefix", `{"type": "ByteLevel"}`, "we're", []string{"Ġwe", "'re"}},
		{"GPT-2: letters beyond ASCII", `{"type": "ByteLevel", "add_prefix_space": false}`, "é 1", []string{"Ã©", "Ġ1"}},
		{"Llama 3: digits by three", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "` + llama3 + `"}, "behavior": "Isolated", "invert": false},
			{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}`, "12345 'LL x\n\n y", []string{"123", "45", "Ġ'", "LL", "Ġx", "ĊĊ", "Ġy"}},
		{"Llama 3: a wide space is a space", `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "` + llama3 + `"}, "behavior": "Isolated", "invert": false},
			{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]}`, "a\u00a0\u00a0b", []string{"a", "Âł", "Âłb"}},
		{"digits apart", `{"type": "Digits", "individual_digits": true}`, "a12b", []string{"a", "1", "2", "b"}},
		{"metaspace splits before each mark", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}`, "a b", []string{"▁a", "▁b"}},
		{"metaspace without splitting", `{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false}`, "a b", []string{"a▁b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var vocab []string
			for i, p := range slices.Compact(slices.Sorted(slices.Values(tc.pieces))) {
				vocab = append(vocab, fmt.Sprintf("%q: %d", p, i))
			}
			e, err := bpe.New([]byte(`{"model": {"type": "BPE", "ignore_merges": true, "vocab": {` + strings.Join(vocab, ",") + `}, "merges": []}, "pre_tokenizer": ` + tc.pre + `}`))
			if err != nil {
				t.Fatal(err)
			}
			sorted := slices.Compact(slices.Sorted(slices.Values(tc.pieces)))
			var got []string
			for _, id := range e.Encode(tc.text) {
				got = append(got, sorted[id])
			}
			if !slices.Equal(got, tc.pieces) {
				t.Errorf("%q: got %q, want %q", tc.text, got, tc.pieces)
			}
		})
	}
}

func TestMergesApplyByRankAndFromTheLeft(t *testing.T) {
	e := tokenizer(t, []string{"a", "b", "aa", "ab", "aab"}, `"a b", ["a", "a"], ["a", "ab"]`, "")
	for text, want := range map[string][]int32{
		"ab":    {3},
		"aab":   {4},    // a b first, though a a stands further left
		"aaa":   {2, 0}, // the left pair of two equal ones
		"aaaab": {2, 4},
		"b":     {1},
		"":      nil,
	} {
		if got := e.Encode(text); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestSentencePieceConversionsPrependAndFallBackToBytes(t *testing.T) {
	e := tokenizer(t, []string{"<s>", "▁", "a", "▁a", "<0xC3>", "<0xA9>"}, `"▁ a"`, `,
		"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
			"special_tokens": {"<s>": {"id": "<s>", "ids": [0]}}}`)
	if got, want := e.Encode("a aé"), []int32{3, 3, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := e.First(); !slices.Equal(got, []int32{0}) {
		t.Errorf("got opening tokens %v, want [0]", got)
	}
}

func TestWhatCannotBeEncodedExactlyIsRefused(t *testing.T) {
	const model = `"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}`
	for _, tc := range []struct{ file, says string }{
		{`{`, "tokenizer.json"},
		{`{"model": {"type": "Unigram"}}`, "Unigram"},
		{`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}}`, "not a pair"},
		{`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}}`, "not in the vocabulary"},
		{`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "u"}}`, "unk_token"},
		{`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}}`, "end_of_word_suffix"},
		{`{` + model + `, "pre_tokenizer": {"type": "BertPreTokenizer"}}`, "BertPreTokenizer"},
		{`{` + model + `, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a(?=b)"}, "behavior": "Isolated"}}`, "regexp"},
		{`{` + model + `, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Contiguous"}}`, "Contiguous"},
		{`{` + model + `, "normalizer": {"type": "NFKD"}}`, "NFKD"},
	} {
		_, err := bpe.New([]byte(tc.file))
		var e *bpe.Error
		if !errors.As(err, &e) || e.Code() != "eval.tokenizer" || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got %v, want an error that says %q", tc.file, err, tc.says)
		}
	}
}
