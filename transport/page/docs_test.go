package page

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readText(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReferenceListsEveryCode(t *testing.T) {
	find := func(text, pattern string) []string {
		var all []string
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		slices.Sort(all)
		return all
	}
	want := find(readText(t, "errors.go"), `= "(page\.\w+)"`)
	got := find(readText(t, "../../docs/wire-format.md"), "(?m)^\\| `(page\\.\\w+)`")
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("docs/wire-format.md explains %v, want %v", got, want)
	}
}

// The reference's Python example makes a page that is accepted, and reads cores.
func TestReferenceExampleInPythonWorks(t *testing.T) {
	python := needPython(t)
	_, rest, found := strings.Cut(readText(t, "../../docs/wire-format.md"), "```python\n")
	example, _, ends := strings.Cut(rest, "```")
	if !found || !ends {
		t.Fatal("docs/wire-format.md has no Python example")
	}
	dir := t.TempDir()
	out, reply := filepath.Join(dir, "page"), filepath.Join(dir, "reply")
	if err := os.WriteFile(reply, encode(t, sampleCores(F16)), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `import sys
import numpy as np
k = np.ones((1, 2, 3, 128), np.float16); v = k; ids = np.array([5, 6, 7])
def send(page):
    open(sys.argv[1], "wb").write(page)
    return open(sys.argv[2], "rb").read()
` + example + `
assert cores["counts"].sum() == 20 and cores["bias"].shape == (2, 2, 3), cores
`
	if output, err := exec.Command(python, "-c", script, out, reply).CombinedOutput(); err != nil {
		t.Fatalf("the example fails: %v\n%s", err, output)
	}
	blob, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Decode(blob, Limits{})
	if err != nil {
		t.Fatalf("decode the example's page: %v", err)
	}
	if p.Tokens != 3 || p.KVHeads != 2 || p.DType != F16 {
		t.Errorf("got %d tokens, %d heads of %v, want 3, 2, F16", p.Tokens, p.KVHeads, p.DType)
	}
}
