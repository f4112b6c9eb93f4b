package helm

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The platform engineer's quickstart of docs/tutorials/quickstart.md, step by step, with its own files. The engine is a stand-in, and the
// listeners are on ports of the test's; all else is as written there.
func TestThePlatformEngineersQuickstart(t *testing.T) {
	const files = "../../helm/examples/quickstart/"
	ns := namespace(t, nil)
	ports := freePorts(t, 3)
	asked := make(chan *http.Request, 10)
	vllm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		fmt.Fprint(w, `{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`)
	}))
	t.Cleanup(vllm.Close)
	began := time.Now()

	run(t, "policy", "check", files+"policy.yaml")
	if out := run(t, "policy", "explain", "--policy", files+"policy.yaml", "--tenant", "acme", "--model", "llama-3-8b", "--tokens", "4000"); !strings.Contains(out, "half") {
		t.Errorf("policy explain: got %s, want the profile half", out)
	}

	keys := filepath.Join(t.TempDir(), "keys.yaml")
	key := regexp.MustCompile(`sp-\S+`).FindString(run(t, "keys", "new", "--tenant", "acme", "--name", "first", "--file", keys))
	if key == "" {
		t.Fatal("keys new shows no key")
	}
	data, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "semproxy-keys"}, Data: map[string][]byte{"keys.yaml": data}}
	if _, err := k.Client.CoreV1().Secrets(ns).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	helm(t, "helm4", "install", "semproxy", chart, "-n", ns, "-f", files+"semproxy.yaml", "-f", valuesFile(t, loopback(ports)))
	t.Cleanup(func() { _, _ = tryHelm(t, "helm4", "uninstall", "semproxy", "-n", ns, "--wait") })
	injects(t, ns)
	pod := deploy(t, ns, engine("llama", func(p *corev1.PodTemplateSpec) {
		no := false
		p.Spec.AutomountServiceAccountToken = &no
		p.Annotations = map[string]string{"semproxy.io/engine-port": vllm.URL[strings.LastIndex(vllm.URL, ":")+1:]}
	}))
	c, cmd := runContainer(t, pod, "semproxy")
	c.succeeds(t, "the readiness probe", c.spec.ReadinessProbe)

	// A page, and a request with the key.
	if p, err := proveAs(t, ports[2], "acme"); err != nil || p.Profile != "half" || p.Ratio > 0.55 {
		t.Errorf("got %+v, %v; want profile half", p, err)
	}
	for credential, want := range map[string]int{key: http.StatusOK, "another": http.StatusUnauthorized} {
		if got := chat(t, ports[1], credential); got != want {
			t.Errorf("a request: got status %d, want %d", got, want)
		}
	}
	if len(asked) == 0 {
		t.Error("no request reached the engine")
	}
	t.Logf("to the first answer and the first page on cores: %v", time.Since(began).Round(time.Millisecond))

	if out := run(t, "doctor", "--admin", fmt.Sprintf("http://127.0.0.1:%d", ports[0])); strings.Contains(out, "fail") {
		t.Errorf("doctor:\n%s", out)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // its ports are the next one's
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sidecar ended with %v", err)
	}

	// helm test
	var job batchv1.Job
	decode(t, helm(t, "helm4", "template", "semproxy", chart, "-n", ns, "--kube-version", "1.37.0", "--show-only", "templates/tests/prove.yaml",
		"-f", files+"semproxy.yaml", "-f", valuesFile(t, loopback(ports))), &job)
	prove := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "prove", Labels: job.Spec.Template.Labels, Annotations: job.Spec.Template.Annotations}, Spec: job.Spec.Template.Spec}
	if prove, err = admit(t, ns, prove); err != nil {
		t.Fatal(err)
	}
	c, _ = runContainer(t, prove, "semproxy")
	c.succeeds(t, "the startup probe", c.spec.StartupProbe)
	p, cmd := runContainer(t, prove, "prove", fmt.Sprintf("SEMPROXY_NATS_URL=nats://127.0.0.1:%d", ports[2]))
	if err := cmd.Wait(); err != nil || !strings.Contains(p.log.String(), "proved") {
		t.Errorf("helm test: %v\n%s", err, p.log)
	}
}

// run is a command of the program, which must succeed.
func run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, semproxy, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("semproxy %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// chat sends a request through the proxy and returns its status.
func chat(t *testing.T, port int, key string) int {
	t.Helper()
	body := strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/chat/completions", port), body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	r.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}
