package bpe_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval/bpe"
)

// testdata/added.py made the file with the tokenizers library.
func TestAddedTokensAreFoundAsTheTokenizersLibraryFindsThem(t *testing.T) {
	data, err := os.ReadFile("testdata/added.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Name      string          `json:"name"`
		Tokenizer json.RawMessage `json:"tokenizer"`
		Cases     []struct {
			Text string  `json:"text"`
			IDs  []int32 `json:"ids"`
		} `json:"cases"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, one := range all {
		e, err := bpe.New(one.Tokenizer)
		if err != nil {
			t.Errorf("%s: %v", one.Name, err)
			continue
		}
		for _, c := range one.Cases {
			n++
			if got := e.Encode(c.Text); !slices.Equal(got, c.IDs) {
				t.Errorf("%s: %q: got %v, want %v", one.Name, c.Text, got, c.IDs)
			}
		}
	}
	if n < 200 {
		t.Errorf("got %d cases, want 200 or more", n)
	}
}

func TestAModelOfAnotherKindIsNamed(t *testing.T) {
	_, err := bpe.New([]byte(`{"model": {"type": "Unigram", "vocab": [["a", -1.5]]}}`))
	if err == nil || !strings.Contains(err.Error(), `model type "Unigram" is not supported`) {
		t.Errorf("got %v, want its type", err)
	}
}
