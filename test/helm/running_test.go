package helm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// loopback are values that keep the sidecar's listeners on this machine, on ports of the test's own.
func loopback(ports []int) string {
	return fmt.Sprintf(`
admin: { port: %d }
proxy: { port: %d }
config:
  admin: { listen: "127.0.0.1:%d" }
  proxy: { listen: "127.0.0.1:%d" }
  nats: { embedded: { listen: "127.0.0.1:%d" } }
`, ports[0], ports[1], ports[0], ports[1], ports[2])
}

const twoProfiles = `
policy:
  profiles:
    half: { method: weighted, ratio: 0.5 }
    quarter: { method: weighted, ratio: 0.25 }
  tenants:
    acme: { rules: [ { profile: %s } ] }
`

type proved struct {
	OK      bool
	Ratio   float64
	Profile string
}

// proveAs sends a page as a tenant and reads what came of it.
func proveAs(t *testing.T, nats int, tenant string) (p proved, err error) {
	t.Helper()
	cmd := exec.Command(semproxy, "prove", "--nats-url", fmt.Sprintf("nats://127.0.0.1:%d", nats), "--tenant", tenant, "--rounds", "1", "--max-error", "0", "--max-ratio", "1",
		"--timeout", "30s", "--json")
	out, err := cmd.Output()
	if err != nil {
		return p, fmt.Errorf("%w: %s", err, out)
	}
	return p, json.Unmarshal(out, &p)
}

func TestAnUpgradesPolicyReachesARunningSidecar(t *testing.T) {
	ns := namespace(t, nil)
	ports := freePorts(t, 3)
	values := func(profile string) string { return loopback(ports) + fmt.Sprintf(twoProfiles, profile) }
	install(t, ns, "kv", values("half"))
	upgrade := func(profile string) {
		t.Helper()
		helm(t, "helm4", "upgrade", "kv", chart, "-n", ns, "-f", valuesFile(t, values(profile)))
	}
	engineServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the engine: ", r.URL.Path) }))
	t.Cleanup(engineServer.Close)
	port := engineServer.URL[strings.LastIndex(engineServer.URL, ":")+1:]
	injects(t, ns)
	pod := deploy(t, ns, engine("llama", func(p *corev1.PodTemplateSpec) {
		no := false
		p.Spec.AutomountServiceAccountToken = &no
		p.Annotations = map[string]string{"semproxy.io/engine-port": port}
	}))

	// The sidecar as the pod has it.
	c, cmd := runContainer(t, pod, "semproxy")
	c.succeeds(t, "the startup probe", c.spec.StartupProbe)
	c.succeeds(t, "the readiness probe", c.spec.ReadinessProbe)
	c.succeeds(t, "the liveness probe", c.spec.LivenessProbe)
	if body, err := c.get(t, intstr.FromString("semproxy"), "/health"); err != nil || body != "the engine: /health" {
		t.Errorf("through the proxy: %q, %v; want the engine's answer", body, err)
	}
	if p, err := proveAs(t, ports[2], "acme"); err != nil || p.Profile != "half" || p.Ratio > 0.52 {
		t.Errorf("got %+v, %v; want profile half", p, err)
	}

	// helm upgrade -> ConfigMap -> the kubelet's swap of a link -> the policy in force.
	upgrade("quarter")
	c.mount(t)
	until(t, "the new policy is in force", func() error {
		p, err := proveAs(t, ports[2], "acme")
		if err == nil && (p.Profile != "quarter" || p.Ratio > 0.27) {
			err = fmt.Errorf("got %+v", p)
		}
		return err
	})

	// A bad one is refused, is counted where the alert looks, and the last good one stays.
	upgrade("nonsense")
	c.mount(t)
	until(t, "the bad policy is counted", func() error {
		metrics, err := c.get(t, intstr.FromString("semproxy-admin"), "/metrics")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(metrics, "\n") {
			if strings.HasPrefix(line, "semproxy_policy_reloads_total{") && strings.Contains(line, `semproxy_outcome="rejected"`) && strings.HasSuffix(line, " 1") {
				return nil
			}
		}
		return errNotYet
	})
	rule := render(t, ns, "--show-only", "templates/prometheusrule.yaml", "--set", "prometheusRule.enabled=true")
	if !strings.Contains(rule, `increase(semproxy_policy_reloads_total{semproxy_outcome="rejected"`) {
		t.Errorf("no alert looks at the metric:\n%s", rule)
	}
	if log := c.log.String(); !strings.Contains(log, "policy_rejected") || !strings.Contains(log, "/etc/semproxy/policy/policy.yaml:") || !strings.Contains(log, "nonsense") {
		t.Errorf("the log does not name the file and the mistake:\n%s", log)
	}
	if p, err := proveAs(t, ports[2], "acme"); err != nil || p.Profile != "quarter" {
		t.Errorf("after the bad policy: got %+v, %v; want profile quarter still", p, err)
	}

	// The Deployment's rollback is the policy's: the good one is taken again.
	helm(t, "helm4", "rollback", "kv", "1", "-n", ns)
	c.mount(t)
	until(t, "the first policy is in force again", func() error {
		p, err := proveAs(t, ports[2], "acme")
		if err == nil && p.Profile != "half" {
			err = fmt.Errorf("got %+v", p)
		}
		return err
	})

	// The kubelet's SIGTERM.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the sidecar ended with %v", err)
	}
}

// The pod of "helm test", whose two containers run here as they are rendered.
func TestThePodOfHelmTestProvesTheSidecar(t *testing.T) {
	ns := namespace(t, nil)
	ports := freePorts(t, 3)
	install(t, ns, "kv", loopback(ports))
	injects(t, ns)
	var job batchv1.Job
	decode(t, render(t, ns, "--show-only", "templates/tests/prove.yaml", "-f", valuesFile(t, loopback(ports))), &job)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "prove", Labels: job.Spec.Template.Labels, Annotations: job.Spec.Template.Annotations}, Spec: job.Spec.Template.Spec}
	pod, err := admit(t, ns, pod)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := runContainer(t, pod, "semproxy")
	c.succeeds(t, "the startup probe", c.spec.StartupProbe)
	// The port is the test's own, so it must be told.
	p, cmd := runContainer(t, pod, "prove", fmt.Sprintf("SEMPROXY_NATS_URL=nats://127.0.0.1:%d", ports[2]))
	if err := cmd.Wait(); err != nil || !strings.Contains(p.log.String(), "proved") {
		t.Errorf("%v\n%s", err, p.log)
	}
}

// render renders the chart offline.
func render(t *testing.T, ns string, args ...string) string {
	t.Helper()
	return helm(t, "helm4", append([]string{"template", "kv", chart, "-n", ns, "--kube-version", "1.37.0"}, args...)...)
}
