package codes

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of the manual again")

// The manual's tables are those of this package.
func TestTheManualHasEveryCode(t *testing.T) {
	const path = "../docs/reference/errors.md"
	for name, in := range map[string]In{"plane": Plane, "page": Page, "memory": Memory, "proxy": Proxy, "admin": Admin} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := "<!-- codes "+name+": written by go test ./codes -update -->\n\n", "\n<!-- end of codes -->\n"
		head, rest, ok := strings.Cut(string(data), begin)
		_, tail, ends := strings.Cut(rest, end)
		if !ok || !ends {
			t.Fatalf("%s has no place for the table %s", path, name)
		}
		want := head + begin + Table(in) + end + tail
		if *update && want != string(data) {
			if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if want != string(data) {
			t.Errorf("%s: the table %s is out of date: make generate writes it", path, name)
		}
	}
}

// Every name is in the table, once.
func TestEveryNameIsExplainedOnce(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "names.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.BasicLit); ok {
			text, err := strconv.Unquote(v.Value)
			if err != nil {
				t.Fatal(err)
			}
			names[text] = 0
		}
		return true
	})
	for _, c := range All() {
		if c.In == 0 || c.Meaning == "" || c.Remedy == "" && c.In != Memory && c.In != Admin {
			t.Errorf("%s: got no place, meaning or remedy", c.Name)
		}
		if n, known := names[c.Name]; !known || n > 0 {
			t.Errorf("%s: got it %d times before, among the names: %v", c.Name, n, known)
		}
		names[c.Name]++
	}
	for name, n := range names {
		if n != 1 {
			t.Errorf("%s: got %d rows, want 1", name, n)
		}
	}
}

func TestWhatMayBeSentAgain(t *testing.T) {
	for code, want := range map[string]bool{
		LimitRate: true, LimitBytes: true, LimitJobs: true, Busy: true, Draining: true, Deadline: true, StoreAway: true, JobPending: true,
		"limit.of_tomorrow": true, PageTooLarge: false, Internal: false, NotFound: false, MemoryStale: false, "": false, "unknown": false,
	} {
		if got := Retryable(code); got != want {
			t.Errorf("%q: got %v, want %v", code, got, want)
		}
	}
}

// A code is written out here only: elsewhere it is a name of this package.
func TestCodesStandOnce(t *testing.T) {
	written := map[string]bool{}
	for _, c := range All() {
		if strings.Contains(c.Name, ".") {
			written[strconv.Quote(c.Name)] = true
		}
	}
	for _, dir := range []string{"compress", "gpu", "pipeline", "policy", "proxy", "sidecar", "store", "transport"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if v, ok := n.(*ast.BasicLit); ok && v.Kind == token.STRING && written[v.Value] {
					t.Errorf("%s writes the code %s out", path, v.Value)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
