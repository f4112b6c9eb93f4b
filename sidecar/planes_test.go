package sidecar_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
)

// Each plane runs its own parts, and the request plane's learns of the other's pages: those that were refused, too.
func TestTheRequestPlaneLearnsOfPages(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "planes.sock")
	apart := func(planes string) func(*config.Config) {
		return func(c *config.Config) {
			c.Planes, c.PlanesSocket = planes, socket
			c.Proxy.Listen, c.Proxy.Engine.URL, c.Proxy.Identity.AnonymousTenant = "127.0.0.1:0", "http://127.0.0.1:1", "acme"
		}
	}
	pages, requests := sidecartest.Start(t, apart(config.PlanesPages)), sidecartest.Start(t, apart(config.PlanesRequests))
	if pages.ProxyURL() != "" || requests.ProxyURL() == "" || requests.NATSURL() != "" || requests.Device() != "none" {
		t.Errorf("got the proxies %q and %q, NATS %q and device %s of the request plane", pages.ProxyURL(), requests.ProxyURL(), requests.NATSURL(), requests.Device())
	}
	c := pages.Client(t, "acme", client.Options{MaxAttempts: 1})
	for i, blob := range sidecartest.Distinct(t, 4) {
		if _, err := c.Compress(t.Context(), blob); err != nil {
			t.Errorf("page %d: %v", i, err)
		}
	}
	if _, err := c.Compress(t.Context(), []byte("no page")); err == nil {
		t.Error("no page: got no error")
	}
	sidecartest.Until(t, "all pages are known", func() bool {
		text := sidecartest.Get(t, requests.AdminURL()+"/api/v1/pages")
		return strings.Count(text, `"outcome":"compressed"`) == 4 && strings.Contains(text, `"error":"page.truncated"`)
	})
	for _, path := range []string{"/api/v1/tenants", "/api/v1/requests/page-3/explain", "/api/v1/overview"} {
		if got, want := sidecartest.Get(t, requests.AdminURL()+path), "acme"; !strings.Contains(got, want) {
			t.Errorf("%s: got %.300s, want %s in it", path, got, want)
		}
	}
	if got := sidecartest.Get(t, requests.AdminURL()+"/api/v1/studio"); !strings.Contains(got, "console of the page plane's process") {
		t.Errorf("got %s, want to be told where the studio is", got)
	}
}
