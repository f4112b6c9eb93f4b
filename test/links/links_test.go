package links

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

const root = "../.."

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```") //nolint:gocritic // with (?m) the second ^ begins a line
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?: "[^"]*")?\)|(?:src|href)="([^"]+)"`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?)(?: +#+)?$`)
	id      = regexp.MustCompile(`(?:id|name)="([^"]+)"`)
	text    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	page    = regexp.MustCompile(`(?:^|[^\w./-])(docs/[\w./-]+\.md)(#[\w-]+)?`)
)

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for file := range strings.Lines(string(out)) {
		all[strings.TrimSpace(file)] = true
	}
	links, names := 0, 0
	for file := range all {
		if strings.HasPrefix(file, "proxy/console/dist/") || strings.HasPrefix(file, "test/links/") || strings.HasPrefix(file, "test/trackrecord/") {
			continue
		}
		raw, err := os.ReadFile(path.Join(root, file))
		if err != nil || len(raw) > 1<<20 || strings.ContainsRune(string(raw[:min(len(raw), 8000)]), 0) {
			continue // removed, or no text
		}
		if strings.HasSuffix(file, ".md") {
			links += checkLinks(t, file, string(raw))
		}
		for _, m := range page.FindAllStringSubmatch(string(raw), -1) {
			names++
			if problem := leads(m[1], m[2]); problem != "" {
				t.Errorf("%s: %s%s: %s", file, m[1], m[2], problem)
			}
		}
	}
	if links < 60 || names < 100 {
		t.Errorf("got %d links and %d names of pages: the test has lost sight of them", links, names)
	}
}

// checkLinks holds a Markdown file's links, and says how many there were.
func checkLinks(t *testing.T, file, markdown string) int {
	t.Helper()
	markdown = code.ReplaceAllString(fence.ReplaceAllString(markdown, ""), "")
	found := link.FindAllStringSubmatch(markdown, -1)
	for _, m := range found {
		target := m[1] + m[2]
		if strings.Contains(target, ":") { // of another place
			continue
		}
		name, anchor, _ := strings.Cut(target, "#")
		if anchor != "" {
			anchor = "#" + anchor
		}
		full := file
		if name != "" {
			full = path.Join(path.Dir(file), name)
		}
		if problem := leads(full, anchor); problem != "" {
			t.Errorf("%s: link %s: %s", file, target, problem)
		}
	}
	return len(found)
}

// leads is empty where there is such a file, with such a heading.
func leads(file, anchor string) string {
	full := path.Join(root, file)
	if strings.HasPrefix(full, "../../../") {
		return "leads out of the repository"
	}
	info, err := os.Stat(full)
	switch {
	case err != nil:
		return "there is no such file"
	case anchor == "" || info.IsDir():
		return ""
	}
	raw, err := os.ReadFile(full)
	if err != nil {
		return err.Error()
	}
	if !anchors(string(raw))[anchor[1:]] {
		return "has no such heading"
	}
	return ""
}

// anchors are the names that GitHub gives headings.
func anchors(markdown string) map[string]bool {
	out := map[string]bool{}
	for _, m := range id.FindAllStringSubmatch(markdown, -1) {
		out[m[1]] = true
	}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(markdown, ""), -1) {
		plain := text.ReplaceAllString(m[1], "$1")
		var b strings.Builder
		for _, r := range strings.ToLower(plain) {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				b.WriteRune(r)
			case r == ' ':
				b.WriteByte('-')
			}
		}
		name := b.String()
		for i := 1; out[name]; i++ {
			name = fmt.Sprintf("%s-%d", b.String(), i)
		}
		out[name] = true
	}
	return out
}

func TestAnchorsAreGitHubs(t *testing.T) {
	got := anchors("# A `b` c: d\n## A `b` c: d\n```\n# no heading\n```\n### [Link](x.md) and `--flag`\n")
	for _, want := range []string{"a-b-c-d", "a-b-c-d-1", "link-and---flag"} {
		if !got[want] {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if got["no-heading"] {
		t.Error("code is taken as a heading")
	}
}
