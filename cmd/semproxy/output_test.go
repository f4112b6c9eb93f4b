package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// The commands that print no result: they serve, write files or manifests, print a document of its own form, or a picture.
var withoutOutput = []string{
	"semproxy calibrate", "semproxy demo", "semproxy inject", "semproxy keys hash", "semproxy keys new", "semproxy man",
	"semproxy nats-config", "semproxy policy schema", "semproxy serve", "semproxy trial",
}

func TestEveryCommandThatPrintsAResultKnowsTheThreeForms(t *testing.T) {
	var visit func(c *cobra.Command)
	seen := 0
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if !c.Runnable() || slices.Contains(withoutOutput, c.CommandPath()) {
			return
		}
		seen++
		f := c.Flags().Lookup("output")
		if f == nil || f.Shorthand != "o" || !strings.HasPrefix(f.Usage, "table, json or yaml") {
			t.Errorf("%s: got %+v, want -o table|json|yaml", c.CommandPath(), f)
			return
		}
		complete, ok := c.GetFlagCompletionFunc("output")
		if !ok {
			t.Errorf("%s: -o is not completed", c.CommandPath())
			return
		}
		if got, _ := complete(c, nil, ""); !slices.Equal(got, show.Forms) {
			t.Errorf("%s: -o completes %v, want %v", c.CommandPath(), got, show.Forms)
		}
	}
	visit(newRoot())
	if seen < 14 {
		t.Errorf("got %d commands with results, want at least 14", seen)
	}
}

func TestJSONAndYAMLSayTheSame(t *testing.T) {
	good := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(good, []byte("apiVersion: semproxy.io/v1\ntenants: { acme: { rules: [ { profile: exact } ] } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"version"}, {"config", "print", "--admin-listen", "127.0.0.1:1"}, {"policy", "check", good}, {"gpu", "info"},
		{"policy", "explain", "--policy", good, "--tenant", "acme"}, {"inspect", "demo:kjv"},
	} {
		out := map[string][]byte{}
		for _, form := range show.Forms {
			var b bytes.Buffer
			if err := run(t.Context(), append(slices.Clone(args), "-o", form), &b, &b); err != nil {
				t.Fatalf("%v -o %s: %v\n%s", args, form, err, b.Bytes())
			}
			out[form] = b.Bytes()
		}
		var j, y any
		if err := json.Unmarshal(out[show.JSON], &j); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if err := yaml.Unmarshal(out[show.YAML], &y); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		again, err := json.Marshal(y)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(again, &y); err != nil {
			t.Fatal(err)
		}
		if args[0] == "config" { // its YAML is what serve reads
			j = y
		}
		if args[0] != "inspect" && !reflect.DeepEqual(j, y) { // its time is another each time
			t.Errorf("%v: got\n%s\nand\n%s", args, out[show.JSON], out[show.YAML])
		}
		if len(out[show.Table]) == 0 || json.Valid(out[show.Table]) {
			t.Errorf("%v: the table is no table: %s", args, out[show.Table])
		}
	}
}

func TestAWordThatLooksLikeSomethingElseStaysAWordInYAML(t *testing.T) {
	var b bytes.Buffer
	want := map[string]any{"a": "true", "b": "12", "c": "", "d": "two\nlines", "e": true, "f": 12.5, "g": []any{}, "h": "null", "i": "# no comment"}
	if err := show.Value(&b, show.YAML, want); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := yaml.Unmarshal(b.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v %v of\n%s, want %v", got, err, b.Bytes(), want)
	}
}

func TestPolicyCheckTellsEveryMistakeAsData(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(bad, []byte("apiVersion: semproxy.io/v1\nprofiles:\n  a: { method: weighted, ratio: 3 }\ntenant: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err := run(t.Context(), []string{"policy", "check", bad, "-o", "json"}, &b, &b)
	if err == nil || exit.Code(err) != exit.Refused {
		t.Errorf("got %v, want the exit code of what is refused", err)
	}
	var got policyReport
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.OK || len(got.Problems) != 2 || got.Problems[0].Line != 3 || got.Problems[0].Column != 26 || got.Problems[0].Path != "profiles.a.ratio" || got.Problems[1].Column != 1 {
		t.Errorf("got %+v, want both mistakes with line and column", got)
	}
}

func TestTenantsAreCompletedFromThePolicy(t *testing.T) {
	var b bytes.Buffer
	if err := run(t.Context(), []string{"__complete", "policy", "explain", "--policy", "../../configs/policies/example.yaml", "--tenant", ""}, &b, &b); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(b.String(), "acme\n") {
		t.Errorf("got %q, want the policy's tenants", b.String())
	}
}
