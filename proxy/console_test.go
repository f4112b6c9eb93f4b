package proxy

import (
	"regexp"
	"strings"
	"testing"
)

// The console's files hold no data, run no inline script, and are for the machine itself where there is no token.
func TestTheConsoleIsServedWithACSPThatForbidsInlineScript(t *testing.T) {
	open, _ := apiServer(t, nil)
	closed, _ := apiServer(t, func(c *AdminConfig) { c.Token = func() string { return "secret" } })
	page := send(t, "GET", open.URL()+"/console/", "")
	if page.status != 200 || !strings.Contains(page.body, `<main id="main"`) {
		t.Fatalf("got %d %.200s, want the page", page.status, page.body)
	}
	csp := page.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("got the policy %q, want %s in it", csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") || regexp.MustCompile(`<script[^>]*>[^<]|<style|style=|onclick=|https?://`).MatchString(page.body) {
		t.Errorf("got the policy %q and the page\n%s\nwant nothing inline and nothing of other hosts", csp, page.body)
	}
	for _, c := range []struct {
		name, path string
		admin      *Admin
		headers    []string
		status     int
		kind       string
	}{
		{"its script", "/console/app.js", open, nil, 200, "text/javascript"},
		{"its style", "/console/app.css", open, nil, 200, "text/css"},
		{"what is not there", "/console/other.js", open, nil, 404, "text/plain"},
		{"a path that leads out", "/console/../../etc/passwd.js", open, nil, 404, ""},
		{"a web page that points its name here", "/console/", open, []string{"Host: evil.example"}, 403, "application/json"},
		{"with a token the files are for all", "/console/", closed, []string{"Host: semproxy.internal"}, 200, "text/html"},
		{"the root leads there", "/", open, nil, 200, "text/html"},
	} {
		got := send(t, "GET", c.admin.URL()+c.path, "", c.headers...)
		if got.status != c.status || !strings.HasPrefix(got.header.Get("Content-Type"), c.kind) {
			t.Errorf("%s: got %d %s, want %d %s", c.name, got.status, got.header.Get("Content-Type"), c.status, c.kind)
		}
	}
	if again := send(t, "GET", open.URL()+"/console/app.js", "", "If-None-Match: "+send(t, "GET", open.URL()+"/console/app.js", "").header.Get("ETag")); again.status != 304 {
		t.Errorf("an unchanged file: got %d, want 304", again.status)
	}
}
