package main

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
)

// story is what explain tells.
type story struct {
	Request recent.Request `json:"request"`
	Summary []string       `json:"summary"`
}

func (a *apart) explain(id string) story {
	a.t.Helper()
	return getJSON[story](a.t, "http://"+a.admins["requests"]+"/api/v1/requests/"+id+"/explain")
}

// readiness is an answer of /readyz.
type readiness struct {
	status int
	text   string
}

func (a *apart) readiness(planes, path string) readiness {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, "http://"+a.admins[planes]+path, http.NoBody)
	if err != nil {
		a.t.Fatal(err)
	}
	response, err := a.chat.Do(request)
	if err != nil {
		return readiness{}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return readiness{status: response.StatusCode, text: string(text)}
}

func (a *apart) metric(planes, line string) bool {
	return strings.Contains(a.readiness(planes, "/metrics").text, line)
}

// Without the page plane's process requests are served exact, and everything says why; with it they are compressed, and both processes know.
func TestRequestsAreExactWhileThePagePlanesProcessIsAway(t *testing.T) {
	a := newApart(t)
	a.start("requests")
	a.served()
	header, err := a.ask("alone")
	if err != nil || !strings.Contains(header.Get("Semproxy-Decision"), `exact; profile="half"`) || !strings.Contains(header.Get("Semproxy-Decision"), `gate="page_plane"`) {
		t.Errorf("got %v, %q, want an exact answer because of the page plane", err, header.Get("Semproxy-Decision"))
	}
	if s := a.explain("alone"); !slices.ContainsFunc(s.Summary, func(text string) bool { return strings.Contains(text, "page plane's process is not connected") }) {
		t.Errorf("explain: got %q, want it to say that the page plane is away", s.Summary)
	}
	if r := a.readiness("requests", "/readyz"); r.status != 200 || !strings.Contains(r.text, `"degraded":["page_plane"]`) {
		t.Errorf("/readyz: got %+v, want ready, and the page plane degraded", r)
	}
	if r := a.readiness("requests", "/readyz/pages"); r.status != 503 {
		t.Errorf("/readyz/pages: got %+v, want 503", r)
	}
	sidecartest.Until(t, "the metric says that the page plane is away", func() bool {
		return a.metric("requests", `semproxy_degraded{`) && a.metric("requests", "page_plane\"} 1\n")
	})
	if !a.metric("requests", "semproxy_reports_connected") {
		t.Error("there is no metric of the connection")
	}

	a.start("pages")
	a.explained("together")
	if r := a.readiness("requests", "/readyz/pages"); r.status != 200 || strings.Contains(r.text, "degraded") {
		t.Errorf("/readyz/pages: got %+v, want ready", r)
	}
	if r := a.readiness("pages", "/readyz/pages"); r.status != 200 || !strings.Contains(r.text, `"name":"request_plane","ok":true,"detail":{"connected":true`) {
		t.Errorf("the page plane's /readyz/pages: got %+v, want ready and connected", r)
	}
	for planes, outcome := range map[string]string{"requests": "received", "pages": "sent"} {
		sidecartest.Until(t, planes+" count reports", func() bool {
			text := a.readiness(planes, "/metrics").text
			return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
				return strings.HasPrefix(line, "semproxy_reports_total{") && strings.Contains(line, `semproxy_outcome="`+outcome+`"`) && !strings.HasSuffix(line, " 0")
			})
		})
	}
	// The console of the request plane counts pages and requests; the page plane's has the studio.
	overview := getJSON[struct {
		Tenants []recent.Counts `json:"tenants"`
		Has     map[string]bool `json:"has"`
	}](t, "http://"+a.admins["requests"]+"/api/v1/overview")
	if len(overview.Tenants) != 1 || overview.Tenants[0].Pages == 0 || overview.Tenants[0].Requests == 0 || overview.Has["studio"] {
		t.Errorf("the request plane's console: got %+v", overview)
	}
	if v := getJSON[map[string]string](t, "http://"+a.admins["pages"]+"/version"); v["planes"] != "pages" || v["device"] == "none" {
		t.Errorf("got %v", v)
	}
	if _, err := cli(t, "doctor", "--admin", "http://"+a.admins["requests"]); err != nil {
		t.Errorf("doctor: got %v, want no problem", err)
	}
}

// What would serve nothing, or what the two processes would disagree about, ends the start with the key and the remedy.
func TestPlanesThatCannotRunAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such word":             {[]string{"--planes=none"}, "planes: must be one of both, requests, pages"},
		"no socket":                {[]string{"--planes=pages"}, "planesSocket: must be the path of a socket"},
		"requests without a proxy": {[]string{"--planes=requests", "--planes-socket=/tmp/x"}, "planes: must not be requests without proxy.listen"},
		"one plane's policy":       {[]string{"--planes=pages", "--planes-socket=/tmp/x", "--admin-writable", "--admin-token-file=/tmp/t"}, "admin.writable: must not be set with planes pages"},
		"the senders' socket":      {[]string{"--planes=pages", "--planes-socket=/tmp/x", "--shared-memory-socket=/tmp/x"}, "planesSocket: must differ from sharedMemory.socket"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := cli(t, append([]string{"config", "print"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
