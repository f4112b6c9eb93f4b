package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestDemo(t *testing.T) {
	start := time.Now()
	out, err := cli(t, "demo", "--color", "never")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("the demo took %s, want under 20 s", d)
	}
	// Every tenant's rows: as many cores as its policy says, and the reference's.
	for _, row := range []string{
		`acme +half +3 +12320 -> 61\d\d +0\.499 `, `acme +1 of 1 pages equal +3 from the store, p50 [0-9.]+ [mu]s +[0-9a-f]{32}`,
		`globex +quarter +3 +12320 -> 30\d\d +0\.249 .* violated `, `globex +3 of 3 pages equal +3 from .* +[0-9a-f]{32}`,
		`initech +paper +15 +12320 -> 61\d\d +0\.4\d\d `, `initech +15 of 15 pages equal +15 from .* +[0-9a-f]{32}`,
	} {
		if !regexp.MustCompile(`(?m)^` + row).MatchString(out) {
			t.Errorf("no row like %q in\n%s", row, out)
		}
	}
	for _, want := range []string{"kv.send", "kv.page", "kv.receive", "semproxy.decide", "kv.compress", "store.put", "kv.reply", "Bethel"} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not show %q", want)
		}
	}
}

func TestDemoColours(t *testing.T) {
	out, err := cli(t, "demo", "--color", "always")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out, "\x1b[30;48;5;"); n < 20 {
		t.Errorf("%d coloured tokens, want at least 20", n)
	}
}
