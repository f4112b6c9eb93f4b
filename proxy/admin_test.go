package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

type catalog struct{ policies, tenants any }

func (c catalog) Policies() any { return c.policies }
func (c catalog) Tenants() any  { return c.tenants }

func TestTheRoutes(t *testing.T) {
	admin := serveAdmin(t, AdminConfig{
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "semproxy_pages_total 1\n") }),
		Version: map[string]string{"version": "v1.2.3"},
		Catalog: catalog{policies: []string{"balanced"}, tenants: map[string]int{"acme": 1}},
	})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/healthz", 200, `{"status":"alive"}` + "\n"},
		{"HEAD", "/healthz", 200, ""},
		{"GET", "/readyz", 200, `{"status":"ready","checks":[]}` + "\n"},
		{"GET", "/metrics", 200, "semproxy_pages_total 1\n"},
		{"GET", "/version", 200, `{"version":"v1.2.3"}` + "\n"},
		{"GET", "/api/v1/policies", 200, `["balanced"]` + "\n"},
		{"GET", "/api/v1/tenants", 200, `{"acme":1}` + "\n"},
		{"GET", "/", 404, `{"error":{"code":"not_found","message":"no such path"}}` + "\n"},
		{"GET", "/healthz/", 404, `{"error":{"code":"not_found","message":"no such path"}}` + "\n"},
		{"GET", "/api/v1/../../etc/passwd", 404, `{"error":{"code":"not_found","message":"no such path"}}` + "\n"},
		{"POST", "/api/v1/policies", 405, `{"error":{"code":"method_not_allowed","message":"this path has no such method; see Allow"}}` + "\n"},
		{"DELETE", "/api/v1/tenants", 405, `{"error":{"code":"method_not_allowed","message":"this path has no such method; see Allow"}}` + "\n"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			got := ask(t, c.method, admin.URL()+c.path)
			if got.status != c.status || got.body != c.body {
				t.Errorf("got %d %q, want %d %q", got.status, got.body, c.status, c.body)
			}
			if allow := got.header.Get("Allow"); c.status == 405 && !strings.Contains(allow, "GET") {
				t.Errorf("Allow: got %q, want GET in it", allow)
			}
		})
	}
}

func TestWhatIsNotGivenIsNotFound(t *testing.T) {
	admin := serveAdmin(t, AdminConfig{})
	for _, path := range []string{"/metrics", "/version", "/api/v1/policies", "/api/v1/tenants"} {
		if got := ask(t, http.MethodGet, admin.URL()+path); got.status != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, got.status)
		}
	}
}

func TestReadinessNamesEveryReason(t *testing.T) {
	var down atomic.Bool
	admin := serveAdmin(t, AdminConfig{Checks: []Check{
		{Name: "nats", Probe: func(context.Context) error {
			if down.Load() {
				return errors.New("no connection")
			}
			return nil
		}},
		{Name: "store", Probe: func(context.Context) error { return nil }, Detail: func() any { return map[string]int{"objects": 3} }},
		{Name: "policy", Detail: func() any { return map[string]string{"last_reload_error": "tenants.yaml:14: bad ratio"} }},
	}})
	detail := []checkResult{
		{Name: "nats", OK: true},
		{Name: "store", OK: true, Detail: map[string]any{"objects": 3.0}},
		{Name: "policy", OK: true, Detail: map[string]any{"last_reload_error": "tenants.yaml:14: bad ratio"}},
	}
	got := ask(t, http.MethodGet, admin.URL()+"/readyz")
	if want := (readiness{Status: "ready", Checks: detail}); got.status != 200 || !reflect.DeepEqual(decodeJSON[readiness](t, got.body), want) {
		t.Errorf("ready: got %d %s, want 200 %+v", got.status, got.body, want)
	}
	down.Store(true)
	detail[0] = checkResult{Name: "nats", Error: "no connection"}
	got = ask(t, http.MethodGet, admin.URL()+"/readyz")
	if want := (readiness{Status: "not_ready", Checks: detail}); got.status != 503 || !reflect.DeepEqual(decodeJSON[readiness](t, got.body), want) {
		t.Errorf("not ready: got %d %s, want 503 %+v", got.status, got.body, want)
	}
	if got := ask(t, http.MethodGet, admin.URL()+"/healthz"); got.status != 200 {
		t.Errorf("healthz while not ready: got %d, want 200", got.status)
	}
}

func TestASlowCheckIsNotReadyWithinTheLimit(t *testing.T) {
	admin := serveAdmin(t, AdminConfig{CheckLimit: 20 * time.Millisecond, Checks: []Check{
		{Name: "slow", Probe: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
	}})
	if got := ask(t, http.MethodGet, admin.URL()+"/readyz"); got.status != 503 {
		t.Errorf("got %d, want 503", got.status)
	}
}

func TestAnAnswerThatCannotBeEncodedIsAnError(t *testing.T) {
	admin := serveAdmin(t, AdminConfig{Catalog: catalog{policies: make(chan int)}})
	got := ask(t, http.MethodGet, admin.URL()+"/api/v1/policies")
	if code := decodeJSON[apiError](t, got.body).Error.Code; got.status != 500 || code != "internal" {
		t.Errorf("got %d %q, want 500 internal", got.status, code)
	}
}

func TestARequestUnderWayIsFinishedOnShutdown(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	admin, stop, served := serveStuck(t, AdminConfig{}, entered, release)
	answered := make(chan answer, 1)
	go func() { answered <- ask(t, http.MethodGet, admin.URL()+"/metrics") }()
	<-entered
	stop()
	close(release)
	if got := <-answered; got.status != 200 || got.body != "done" || got.err != nil {
		t.Errorf("got %d %q, %v, want 200 done", got.status, got.body, got.err)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(admin.URL(), "http://")); err == nil {
		t.Error("dial after Serve: got a connection, want it refused")
	}
}

func TestARequestThatHangsIsCutAfterTheLimit(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	admin, stop, served := serveStuck(t, AdminConfig{ShutdownLimit: 20 * time.Millisecond}, entered, release)
	failed := make(chan error, 1)
	go func() {
		response, err := http.Get(admin.URL() + "/metrics") //nolint:noctx // the server is what ends it
		if err == nil {
			_ = response.Body.Close()
		}
		failed <- err
	}()
	<-entered
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	if err := <-failed; err == nil {
		t.Error("request: got an answer, want an error: it was cut")
	}
}

// serveStuck serves a /metrics that says when it was entered and answers once it is released.
func serveStuck(t *testing.T, cfg AdminConfig, entered, release chan struct{}) (admin *Admin, stop context.CancelFunc, served chan error) {
	t.Helper()
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = fmt.Fprint(w, "done")
	})
	admin, err := ListenAdmin("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	served = make(chan error, 1)
	go func() { served <- admin.Serve(ctx) }()
	return admin, stop, served
}

func TestAnAddressInUseIsRefusedAndAClosedOneIsFree(t *testing.T) {
	first, err := ListenAdmin("127.0.0.1:0", AdminConfig{})
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(first.URL(), "http://")
	if _, err := ListenAdmin(addr, AdminConfig{}); err == nil {
		t.Error("second listener: got nil, want an error")
	}
	if err := first.Close(); err != nil {
		t.Errorf("Close: got %v, want nil", err)
	}
	second, err := ListenAdmin(addr, AdminConfig{})
	if err != nil {
		t.Fatalf("after Close: got %v, want nil", err)
	}
	served := make(chan error, 1)
	go func() { served <- second.Serve(context.Background()) }()
	ask(t, http.MethodGet, second.URL()+"/healthz")
	http.DefaultClient.CloseIdleConnections()
	if err := second.Close(); err != nil {
		t.Errorf("Close while serving: got %v, want nil", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: got %v, want nil after Close", err)
	}
}

func TestTheURLOfAListenerOnAllInterfacesIsReachable(t *testing.T) {
	for _, c := range []struct {
		ip   net.IP
		want string
	}{
		{net.IPv4zero, "http://127.0.0.1:7"},
		{net.IPv6unspecified, "http://127.0.0.1:7"},
		{net.IPv6loopback, "http://[::1]:7"},
		{net.IPv4(10, 0, 0, 1), "http://10.0.0.1:7"},
	} {
		if got := baseURL(&net.TCPAddr{IP: c.ip, Port: 7}); got != c.want {
			t.Errorf("URL on %v: got %s, want %s", c.ip, got, c.want)
		}
	}
}
