package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const prose = "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was upon the face of the deep. "

// From any folder, on plain text, Markdown, JSONL and a folder of them.
func TestEvalOfOnesOwnTextFromAnyFolder(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, content := range map[string]string{
		"a.txt": strings.Repeat(prose, 12), "texts/b.md": strings.Repeat(prose, 10), "texts/c.jsonl": `{"text": "` + strings.Repeat(prose, 9) + `"}`,
		"texts/picture.png": "\x00\x01", "texts/.git/d.txt": "not read", "short.txt": "In the beginning.", "wrong.jsonl": `{"txt": "x"}`, "binary.txt": "\x00",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out, errOut bytes.Buffer
	if err := run(t.Context(), []string{"eval", "a.txt", "texts", "--out", "report", "--methods", "weighted,window", "--ratios", "0.5"}, &out, &errOut); err != nil {
		t.Fatalf("%v\n%s", err, errOut.String())
	}
	for _, want := range []string{"weighted", "window", "Half of the slots", "on your text", "+-"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant %q", out.String(), want)
		}
	}
	if first, _, _ := strings.Cut(errOut.String(), "\n"); !strings.Contains(first, "a.txt, texts") || !strings.Contains(first, "loading") {
		t.Errorf("got the first line %q, want it before the model is loaded", first)
	}
	if !strings.Contains(errOut.String(), "the longest text has") {
		t.Errorf("got %q, want it to say that the windows are short", errOut.String())
	}
	page, err := os.ReadFile("report/report.html")
	if err != nil || !bytes.Contains(page, []byte("Half of the slots")) || !bytes.Contains(page, []byte("</svg>")) || bytes.Contains(page, []byte("<script")) {
		t.Errorf("report.html: got %v and %.100q", err, page)
	}
	for _, c := range []struct{ arg, want string }{
		{"short.txt", "tokens; give one of"}, {"wrong.jsonl", "neither text nor ids, only txt"}, {"binary.txt", "is no text in UTF-8"}, {"none.txt", "none.txt"},
	} {
		if _, err := runCommand(t, "eval", c.arg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.arg, err, c.want)
		}
	}
	if _, err := runCommand(t, "eval", "--methods", "typo", "--model", "nowhere", "a.txt"); err == nil || !strings.Contains(err.Error(), `"typo"`) {
		t.Errorf("a method that is not: got %v, want it before the model is looked for", err)
	}
	for model, want := range map[string]string{"Org/Name": "on the hub", dir: "config.json"} {
		if _, err := runCommand(t, "eval", "--model", model, "a.txt"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("model %s: got %v, want %q", model, err, want)
		}
	}
	if err := os.WriteFile("m.gguf", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runCommand(t, "eval", "--model", ".", "a.txt"); err == nil || !strings.Contains(err.Error(), "GGUF") {
		t.Errorf("GGUF weights: got %v", err)
	}
}
