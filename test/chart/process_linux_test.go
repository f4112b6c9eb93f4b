package chart

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/shm"
)

const tenants = `
policy:
  tenants:
    acme: { rules: [ { profile: %s } ] }
    unknown: { rules: [ { profile: exact } ] }
`

// The rendered sidecar runs: the binary with exactly its arguments, environment and files, in a root folder of its own.
func TestTheRenderedContainerServes(t *testing.T) {
	ports := freePorts(t, 4)
	proxyPort, adminPort, natsPort, enginePort := ports[0], ports[1], ports[2], ports[3]
	args := []string{"--set=injection.mode=engine,engine.deployment.image=vllm:1,dashboard.enabled=true,prometheusRule.enabled=true", fmt.Sprintf(
		"--set=proxy.port=%d,admin.port=%d,config.nats.embedded.listen=127.0.0.1:%d,engine.port=%d", proxyPort, adminPort, natsPort, enginePort)}
	with := func(profile string) []object {
		return objects(t, render(t, append(args, valuesFile(t, fmt.Sprintf(tenants, profile)))...))
	}
	manifests := with("exact")
	var deployment appsv1.Deployment
	convert(t, find(t, manifests, "Deployment", "demo-semproxy"), &deployment)
	c := start(t, deployment.Spec.Template.Spec, manifests)

	// The engine is not there yet.
	c.probe(t, "startup", c.spec.StartupProbe)
	c.probe(t, "readiness", c.spec.ReadinessProbe)
	c.probe(t, "liveness", c.spec.LivenessProbe)

	socket := c.root + "/run/semproxy/semproxy.sock"
	url := fmt.Sprintf("nats://127.0.0.1:%d", natsPort)
	sender, err := client.Dial(url, transport.ConnectOptions{Once: true}, client.Options{Tenant: "acme", SharedMemory: shm.Options{Socket: socket, RegionBytes: 16 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	page, err := os.ReadFile("../../configs/demo/kjv.page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	send := func() *client.Result {
		t.Helper()
		reply, err := sender.Compress(t.Context(), page)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	if got := send(); got.Header.Get("Semproxy-Outcome") != "exact" || !got.Shared {
		t.Errorf("got %v, shared %v, want an exact page through shared memory", got.Header, got.Shared)
	}

	t.Run("the proxy forwards to the engine's port", func(t *testing.T) { throughProxy(t, c, enginePort) })

	policies := c.root + "/etc/semproxy/policy"
	t.Run("a new policy is followed", func(t *testing.T) {
		c.project(t, policies, find(t, with("balanced"), "ConfigMap", "demo-semproxy-policy"))
		until(t, "the page is compressed", func() bool {
			return send().Header.Get("Semproxy-Ratio") != "1" && send().Header.Get("Semproxy-Outcome") == "stored"
		})
	})
	t.Run("a bad one is refused, and its alert fires", func(t *testing.T) {
		before := body(t, c.url(t, intstr.FromString("semproxy-admin"))+"/metrics")
		c.project(t, policies, find(t, with("nope"), "ConfigMap", "demo-semproxy-policy"))
		until(t, "the log tells of it", func() bool { return strings.Contains(c.log.String(), "policy_rejected") })
		if got := send().Header.Get("Semproxy-Outcome"); got != "stored" {
			t.Errorf("got %q under the last good policy, want stored", got)
		}
		if ready := body(t, c.url(t, intstr.FromString("semproxy-admin"))+"/readyz"); !strings.Contains(ready, `there is no profile \"nope\"`) {
			t.Errorf("readyz does not name the mistake: %s", ready)
		}
		alerts(t, manifests, "SemproxyPolicyRejected", "", before, body(t, c.url(t, intstr.FromString("semproxy-admin"))+"/metrics"))
	})
}

// With planes.split both rendered containers run and find each other: the request plane's tells of a page that the page plane's took.
func TestTheRenderedContainersOfBothPlanesServe(t *testing.T) {
	ports := freePorts(t, 5)
	manifests := objects(t, render(t, "--set=injection.mode=engine,engine.deployment.image=vllm:1,planes.split=true", fmt.Sprintf(
		"--set=proxy.port=%d,admin.port=%d,planes.adminPort=%d,config.nats.embedded.listen=127.0.0.1:%d,engine.port=%d", ports[0], ports[1], ports[2], ports[3], ports[4])))
	var deployment appsv1.Deployment
	convert(t, find(t, manifests, "Deployment", "demo-semproxy"), &deployment)
	pod := deployment.Spec.Template.Spec
	requests := start(t, pod, manifests)
	pages := startIn(t, requests.root, 1, pod, manifests)
	for _, c := range []*container{requests, pages} {
		c.probe(t, "startup", c.spec.StartupProbe)
		c.probe(t, "readiness", c.spec.ReadinessProbe)
		c.probe(t, "liveness", c.spec.LivenessProbe)
	}
	url := requests.url(t, intstr.FromString("semproxy-admin"))
	until(t, "the two have found each other", func() bool { return !strings.Contains(body(t, url+"/readyz/pages"), "not_ready") })
	sender, err := client.Dial(fmt.Sprintf("nats://127.0.0.1:%d", ports[3]), transport.ConnectOptions{Once: true},
		client.Options{Tenant: "acme", SharedMemory: shm.Options{Socket: pages.root + "/run/semproxy/semproxy.sock", RegionBytes: 16 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	page, err := os.ReadFile("../../configs/demo/kjv.page.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := sender.Compress(t.Context(), page); err != nil || !got.Shared {
		t.Fatalf("got %v, want a page through shared memory", err)
	}
	until(t, "the request plane knows the page", func() bool { return strings.Contains(body(t, url+"/api/v1/pages"), `"tenant":"acme"`) })
	throughProxy(t, requests, ports[4])
}

// throughProxy sends a chat through the proxy's rendered port to an engine that listens on its own.
func throughProxy(t *testing.T, c *container, port int) {
	t.Helper()
	asked := make(chan string, 1)
	engine := &http.Server{Addr: fmt.Sprintf("127.0.0.1:%d", port), ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/chat/completions" {
			asked <- string(text)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"object":"chat.completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = engine.ListenAndServe() }()
	t.Cleanup(func() { _ = engine.Close(); <-done })
	chat := func() (*http.Response, error) {
		return http.Post(c.url(t, intstr.FromString("semproxy"))+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","messages":[]}`))
	}
	until(t, "the engine answers", func() bool {
		resp, err := chat()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if got := <-asked; !strings.Contains(got, `"tenant":"anonymous"`) {
		t.Errorf("the engine got %s, want the tenant anonymous in kv_transfer_params", got)
	}
}

func body(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url) //nolint:gosec // the test's own
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatalf("30 s passed before %s", what)
		}
	}
}
