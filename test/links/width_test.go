package links

import (
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// widest is how many characters a line of prose may have.
const widest = 120

// fixed are lines that cannot be wrapped: tables, headings, pictures, comments.
var fixed = regexp.MustCompile(`^\s*(\||#|!\[|<)`)

func TestLinesOfProseAreWrapped(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Fatal(err)
	}
	held := 0
	for file := range strings.Lines(string(out)) {
		file = strings.TrimSpace(file)
		if strings.Contains(file, "/") && !strings.HasPrefix(file, "docs/") {
			continue
		}
		raw, err := os.ReadFile(path.Join(root, file))
		if os.IsNotExist(err) {
			continue // removed
		}
		if err != nil {
			t.Fatal(err)
		}
		held++
		for _, line := range tooWide(string(raw)) {
			t.Errorf("%s: wrap this line at %d characters: %s", file, widest, line)
		}
	}
	if held < 20 {
		t.Errorf("got %d files: the test has lost sight of them", held)
	}
}

// tooWide are the lines of prose that have more characters than they may, and a space outside of code to be wrapped at.
func tooWide(markdown string) (wide []string) {
	inCode := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inCode = !inCode
			continue
		}
		if !inCode && utf8.RuneCountInString(line) > widest && !fixed.MatchString(line) && len(strings.Fields(code.ReplaceAllString(line, ""))) > 1 {
			wide = append(wide, line)
		}
	}
	return wide
}

func TestOnlyProseMustBeWrapped(t *testing.T) {
	long := strings.Repeat("word ", 30)
	for name, text := range map[string]string{
		"a table": "| " + long + "|", "a heading": "## " + long, "code": "```\n" + long + "\n```\n", "a picture": "![" + long + "](x.png)",
		"one word": strings.Repeat("x", 200), "one piece of code": "`" + long + "`;", "a line that fits": strings.Repeat("é", widest-2) + " é",
	} {
		if got := tooWide(text); got != nil {
			t.Errorf("%s: got %q, want nothing", name, got)
		}
	}
	for name, text := range map[string]string{"a paragraph": long, "an item": "- " + long, "prose after code": "```\nx\n```\n" + long} {
		if got := tooWide(text); len(got) != 1 {
			t.Errorf("%s: got %q, want its line", name, got)
		}
	}
}
