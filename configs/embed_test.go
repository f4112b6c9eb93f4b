package configs

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestDemoHoldsEveryPageWithWhatIsExpectedOfIt(t *testing.T) {
	pages, err := fs.Glob(Demo(), "*.page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, page := range pages {
		got = append(got, strings.TrimSuffix(page, ".page.safetensors"))
	}
	want := slices.Sorted(slices.Values(Pages()))
	if !slices.Equal(got, want) {
		t.Errorf("got pages %v, want %v", got, want)
	}
	for _, name := range want {
		for _, file := range []string{name + ".page.safetensors", name + ".expected.safetensors", "tokenizer.json"} {
			info, err := fs.Stat(Demo(), file)
			if err != nil || info.Size() == 0 {
				t.Errorf("%s: got %v, want a file with content", file, err)
			}
		}
	}
}
