package main

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

var updateReference = flag.Bool("update-reference", false, "write docs/reference/commands.md again")

// The manual's page of commands is made of the commands.
func TestTheManualHasEveryCommand(t *testing.T) {
	const path = "../../docs/reference/commands.md"
	var b bytes.Buffer
	b.WriteString("# Commands\n\n<!-- written by `make generate`, from the commands themselves -->\n\n")
	b.WriteString("`-o table|json|yaml` is on every command that prints a result. Exit codes: 1 failed, 2 usage, 3 refused, 4 unavailable.\n" +
		"`semproxy completion SHELL` completes commands, flags and values; `semproxy man DIR` writes manual pages. The keys of\n" +
		"`serve`, which are flags too, are in [configuration](configuration.md).\n")
	show.Reference(&b, newRoot(), newServeCommand().Flags())
	if *updateReference {
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old, b.Bytes()) {
		t.Errorf("%s is out of date: make generate writes it", path)
	}
}
