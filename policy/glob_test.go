package policy

import (
	"regexp"
	"strings"
	"testing"
)

func TestMatchModel(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "meta/llama", true}, {"**", "x", true}, {"llama-3*", "llama-3-8b", true},
		{"llama-3*", "xllama-3", false}, {"*-8b", "llama-3-8b", true}, {"*-8b", "llama-3-8b-it", false}, {"l?ama", "llama", true},
		{"l?ama", "lama", false}, {"a*b*c", "aXbXbXc", true}, {"a*b*c", "aXcXb", false}, {"[a]", "a", false}, {"[a]", "[a]", true}, {"?", "", false},
	} {
		if got := MatchModel(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchModel(%q, %q): got %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

// A glob means the same as the regular expression that it can be written as.
func FuzzMatchModel(f *testing.F) {
	f.Add("a*b?c", "aXXbYc")
	f.Add("*a*a*a*a*b", strings.Repeat("a", 40))
	f.Fuzz(func(t *testing.T, pattern, name string) {
		ascii := func(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }
		if len(pattern) > 64 || len(name) > 64 || !ascii(pattern) || !ascii(name) {
			return // the expression below means the same only for short ASCII
		}
		expr := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern))
		if got, want := MatchModel(pattern, name), regexp.MustCompile(`(?s)^`+expr+`$`).MatchString(name); got != want {
			t.Errorf("MatchModel(%q, %q): got %v, want %v", pattern, name, got, want)
		}
	})
}
