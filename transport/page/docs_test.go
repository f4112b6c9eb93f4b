package page

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/codes"
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
	var want []string
	for _, c := range codes.All() {
		if c.In == codes.Page {
			want = append(want, c.Name)
		}
	}
	slices.Sort(want)
	_, section, _ := strings.Cut(readText(t, "../../docs/reference/errors.md"), "\n## Pages and cores\n")
	section, _, _ = strings.Cut(section, "\n## ")
	got := find(section, "(?m)^\\| `(page\\.\\w+)`")
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("docs/reference/errors.md explains %v, want %v", got, want)
	}
}

// pythonExample is one of the Python examples of the reference.
func pythonExample(t *testing.T, n int) string {
	t.Helper()
	parts := strings.Split(readText(t, "../../docs/reference/wire-format.md"), "```python\n")
	if len(parts) < n+2 {
		t.Fatalf("docs/reference/wire-format.md has %d Python examples, want at least %d", len(parts)-1, n+1)
	}
	example, _, ends := strings.Cut(parts[n+1], "```")
	if !ends {
		t.Fatalf("example %d of docs/reference/wire-format.md does not end", n)
	}
	return example
}

// The reference's Python function finds in both forms the heads that Head finds.
func TestReferenceFunctionInPythonUnpacksBothForms(t *testing.T) {
	python := needPython(t)
	script := "import json, sys\nimport numpy as np\nfrom safetensors.numpy import load\n" + pythonExample(t, 1) + `
all = heads(load(open(sys.argv[1], "rb").read()))
json.dump([[{x: t.tobytes().hex() for x, t in head.items()} for head in layer] for layer in all], sys.stdout)
`
	for name, c := range map[string]*Cores{"padded": sampleCores(F16), "packed": packedCores(F16), "packed from padded": packedOf(sampleCores(F32))} {
		file := filepath.Join(t.TempDir(), "cores")
		if err := os.WriteFile(file, encode(t, c), 0o600); err != nil {
			t.Fatal(err)
		}
		output, err := exec.Command(python, "-c", script, file).Output()
		if err != nil {
			t.Fatalf("%s: the function fails: %v\n%s", name, err, output)
		}
		var got [][]map[string]string
		if err := json.Unmarshal(output, &got); err != nil {
			t.Fatal(err)
		}
		var want [][]map[string]string
		for l := range c.Layers {
			want = append(want, nil)
			for h := range c.KVHeads {
				v := c.Head(l, h)
				want[l] = append(want[l], map[string]string{
					"k": hex.EncodeToString(v.K), "v": hex.EncodeToString(v.V), "counts": hex.EncodeToString(v.Counts),
					"bias": hex.EncodeToString(v.Bias), "positions": hex.EncodeToString(v.Positions),
				})
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// The reference's Python example makes a page that is accepted, and reads cores.
func TestReferenceExampleInPythonWorks(t *testing.T) {
	python := needPython(t)
	example := pythonExample(t, 0)
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
