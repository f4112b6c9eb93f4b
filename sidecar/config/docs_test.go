package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/reference/configuration.md again")

const begin, end = "<!-- keys: written by go test ./sidecar/config -update -->\n", "<!-- end of keys -->\n"

// docs/reference/configuration.md lists every key with its names, default and meaning.
func TestTheManualListsEveryKey(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "configuration.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table: want %q and %q", path, begin, end)
	}
	var table strings.Builder
	table.WriteString("| key | variable | flag | kind | default | what it does |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range Keys() {
		def := k.Default
		if def == "" {
			def = `""`
		}
		fmt.Fprintf(&table, "| `%s` | `%s` | `--%s` | %s | `%s` | %s |\n",
			k.Path, k.Env, k.Flag, strings.ReplaceAll(k.Kind, "|", " or "), def, k.Help)
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+table.String()+end+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != table.String() {
		t.Errorf("%s: got\n%s\nwant (go test -update writes it)\n%s", path, old, table.String())
	}
}
