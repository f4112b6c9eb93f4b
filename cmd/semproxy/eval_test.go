package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/cmd/semproxy/evaluate"
	"github.com/semproxy/semproxy/eval"
)

// runEval runs the command from the root of the repository, where its defaults lie.
func runEval(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	t.Chdir("../..")
	cmd := evaluate.NewCommand()
	var out, errs bytes.Buffer
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err = cmd.ExecuteContext(context.Background())
	return out.String(), errs.String(), err
}

func TestEvalOfTheShippedDataPrintsTheTableAndWritesTheResults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	stdout, stderr, err := runEval(t, "--cases", "1", "--methods", "semantic:exact=0.5+fp8,window", "--ratios", "0.5", "--out", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 perplexity windows", "1 recall cases (6 answers)", "full", "semantic:exact=0.5+fp8", "window", "attention error", "compress ms"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table lacks %q:\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "2 of 2 cases") {
		t.Errorf("got progress %q, want it to end at 2 of 2 cases", stderr)
	}
	data, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Parameters int
		Report     eval.Report
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Parameters < 2_000_000 || len(r.Report.Rows) != 3 || r.Report.Rows[1].Recall == nil {
		t.Errorf("got results of %d parameters and %d rows, want about 2.9 M, and 3 rows with recall", r.Parameters, len(r.Report.Rows))
	}
	if svg, err := os.ReadFile(filepath.Join(dir, "results.svg")); err != nil || !bytes.Contains(svg, []byte("</svg>")) {
		t.Errorf("results.svg: got %v and %.60q, want a whole picture", err, svg)
	}
}

func TestEvalWithoutProportionalAttentionSaysSo(t *testing.T) {
	stdout, _, err := runEval(t, "--cases", "1", "--text", "", "--methods", "paper", "--ratios", "0.25", "--proportional=false")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout, "paper+nobias") || !strings.Contains(stdout, "0 perplexity windows") {
		t.Errorf("got\n%s\nwant a row for paper+nobias and no perplexity windows", stdout)
	}
}

// A user's folder: shards, no tokenizer, texts as ids.
func TestEvalOfAShardedModelWithTokenIDs(t *testing.T) {
	dir := shardedCopy(t)
	ids := make([]string, 120)
	for i := range ids {
		ids[i] = fmt.Sprint(i * 7 % 1280)
	}
	text := filepath.Join(dir, "ids.jsonl")
	line := `{"source": "ids", "ids": [` + strings.Join(ids, ",") + `]}`
	if err := os.WriteFile(text, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--model", dir, "--recall", "", "--context", "100", "--follow", "20", "--methods", "semantic", "--ratios", "0.5"}
	stdout, _, err := runEval(t, append(args, "--text", text)...)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stdout, "1 perplexity windows (19 tokens)") {
		t.Errorf("got\n%s\nwant one window", stdout)
	}
}

func TestEvalNamesWhatIsWrong(t *testing.T) {
	sharded, empty := shardedCopy(t), t.TempDir()
	index := filepath.Join(sharded, "model.safetensors.index.json")
	for _, tc := range []struct {
		name, says string
		args       []string
		before     func() error
	}{
		{"no folder", "config.json", []string{"--model", empty}, nil},
		{"unknown method", `"magic"`, []string{"--methods", "magic", "--cases", "1"}, nil},
		{"ratio out of range", "ratio must be", []string{"--ratios", "2", "--cases", "1"}, nil},
		{"window over the model's context", "context is 1024", []string{"--context", "1000", "--follow", "100"}, nil},
		{"window of nothing", "--follow", []string{"--follow", "1"}, nil},
		{"text without a tokenizer", "--tokenizer", []string{"--model", sharded}, nil},
		{"nothing to measure", "no cases", []string{"--text", "", "--recall", ""}, nil},
		{"shards outside the folder", "outside", []string{"--model", sharded}, func() error {
			return os.WriteFile(index, []byte(`{"weight_map": {"a": "../a.safetensors"}}`), 0o600)
		}},
		{"an empty shard", "a.safetensors", []string{"--model", sharded}, func() error {
			if err := os.WriteFile(index, []byte(`{"weight_map": {"a": "a.safetensors"}}`), 0o600); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(sharded, "a.safetensors"), nil, 0o600)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.before != nil {
				if err := tc.before(); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := runEval(t, tc.args...); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got error %v, want one that says %q", err, tc.says)
			}
		})
	}
}

// shardedCopy is the shipped model as two files with an index, without a tokenizer.
func shardedCopy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "configs", "eval", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	splitModel(t, dir)
	return dir
}
