package helm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deploy makes a Deployment and returns a running pod of it.
func deploy(t *testing.T, ns string, d *appsv1.Deployment) *corev1.Pod {
	t.Helper()
	d, err := k.Client.AppsV1().Deployments(ns).Create(t.Context(), d, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now := int64(0)
		if err := k.Client.AppsV1().Deployments(ns).Delete(context.Background(), d.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	var running corev1.Pod
	until(t, "a pod of "+d.Name+" runs", func() error {
		pods, err := k.Client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			if running = p; p.Status.Phase == corev1.PodRunning {
				return nil
			}
		}
		now, err := k.Client.AppsV1().Deployments(ns).Get(t.Context(), d.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return fmt.Errorf("%d pods, the last is %q %v; the Deployment says %v", len(pods.Items), running.Status.Phase, running.Status.Conditions, now.Status.Conditions)
	})
	return &running
}

func TestAPodOfADeploymentGetsTheSidecar(t *testing.T) {
	ns := namespace(t, nil)
	install(t, ns, "kv", "")
	injects(t, ns)
	pod := deploy(t, ns, engine("llama", nil))

	// Deployment -> ReplicaSet -> Pod: the labels of the template reach the pod, and the pod is what the policy changes.
	if len(pod.OwnerReferences) != 1 || pod.OwnerReferences[0].Kind != "ReplicaSet" {
		t.Errorf("the pod belongs to %v, want a ReplicaSet", pod.OwnerReferences)
	}
	d, err := k.Client.AppsV1().Deployments(ns).Get(t.Context(), "llama", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if sidecars(&d.Spec.Template.Spec) != 0 {
		t.Error("the Deployment was changed, want only its pods")
	}
	if sidecars(&pod.Spec) != 1 || pod.Spec.InitContainers[0].Name != "semproxy" {
		t.Fatalf("got %d sidecars, want 1, the first init container:\n%s", sidecars(&pod.Spec), text(t, pod.Spec))
	}
	c := &pod.Spec.InitContainers[0]
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Errorf("restartPolicy %v, want Always: a native sidecar", c.RestartPolicy)
	}
	if c.StartupProbe == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil {
		t.Error("the sidecar lacks a probe")
	}
	if pod.Labels["semproxy.io/release"] != "kv-semproxy" {
		t.Errorf("labels %v, want semproxy.io/release: kv-semproxy, by which the Service chooses", pod.Labels)
	}
	service, err := k.Client.CoreV1().Services(ns).Get(t.Context(), "kv-semproxy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range service.Spec.Selector {
		if pod.Labels[key] != value {
			t.Errorf("the Service chooses %s=%s, the pod has %q", key, value, pod.Labels[key])
		}
	}
	vllm := container(t, &pod.Spec, "vllm")
	for _, path := range []string{"/dev/shm", "/run/semproxy"} {
		if v := mountAt(c, path); v == "" || v != mountAt(vllm, path) {
			t.Errorf("%s: the sidecar has volume %q, the engine %q; want one", path, v, mountAt(vllm, path))
		}
	}
	if !strings.Contains(text(t, c.Env), "http://127.0.0.1:8000") {
		t.Errorf("the sidecar is not told of the engine's port 8000:\n%s", text(t, c.Env))
	}
}

func TestAnEnginesOwnSharedMemoryIsUsedAgain(t *testing.T) {
	ns := namespace(t, nil)
	install(t, ns, "kv", "")
	injects(t, ns)
	size := resource.MustParse("12Gi")
	pod := deploy(t, ns, engine("llama", func(p *corev1.PodTemplateSpec) {
		p.Spec.Volumes = []corev1.Volume{{Name: "dshm", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &size}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "dshm", MountPath: "/dev/shm"}}
	}))
	c, vllm := container(t, &pod.Spec, "semproxy"), container(t, &pod.Spec, "vllm")
	if got := mountAt(c, "/dev/shm"); got != "dshm" {
		t.Errorf("the sidecar's /dev/shm is volume %q, want the engine's dshm", got)
	}
	n := 0
	for _, m := range vllm.VolumeMounts {
		if m.MountPath == "/dev/shm" {
			n++
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == "semproxy-shm" {
			t.Error("a second /dev/shm was made")
		}
	}
	if n != 1 {
		t.Errorf("the engine has %d mounts at /dev/shm, want 1", n)
	}
}

func TestWhichPodsGetTheSidecar(t *testing.T) {
	ns, other := namespace(t, nil), namespace(t, nil)
	install(t, ns, "kv", "")
	injects(t, ns)
	two := func(p *corev1.PodTemplateSpec) {
		p.Spec.Containers = append([]corev1.Container{{Name: "logger", Image: "busybox"}}, p.Spec.Containers...)
	}
	for _, c := range []struct {
		name, namespace string
		edit            func(*corev1.PodTemplateSpec)
		want            int
		denied          string // part of the reason
		engine, port    string
	}{
		{name: "with the label", want: 1, engine: "vllm", port: "8000"},
		{name: "with the release's name in the label", want: 1, engine: "vllm", port: "8000",
			edit: func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/inject"] = "kv-semproxy" }},
		{name: "without the label", edit: func(p *corev1.PodTemplateSpec) { delete(p.Labels, "semproxy.io/inject") }},
		{name: "with the label false", edit: func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/inject"] = "false" }},
		{name: "of another release", edit: func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/inject"] = "other" }},
		{name: "in another namespace", namespace: other},
		{name: "whose engine is the second container", want: 1, engine: "vllm", port: "8000", edit: func(p *corev1.PodTemplateSpec) {
			two(p)
			p.Annotations = map[string]string{"semproxy.io/engine-container": "vllm"}
		}},
		{name: "whose engine listens elsewhere", want: 1, engine: "vllm", port: "9000", edit: func(p *corev1.PodTemplateSpec) {
			p.Annotations = map[string]string{"semproxy.io/engine-port": "9000"}
		}},
		{name: "whose engine is unknown", denied: `only "logger", "vllm"; set the annotation semproxy.io/engine-container`, edit: func(p *corev1.PodTemplateSpec) {
			two(p)
			p.Annotations = map[string]string{"semproxy.io/engine-container": "tgi"}
		}},
		{name: "whose engine's port is none", denied: "semproxy.io/engine-port must be the port", edit: func(p *corev1.PodTemplateSpec) {
			p.Annotations = map[string]string{"semproxy.io/engine-port": "http"}
		}},
		{name: "whose engine has the sidecar's port", denied: "none of the sidecar's", edit: func(p *corev1.PodTemplateSpec) {
			p.Annotations = map[string]string{"semproxy.io/engine-port": "9090"}
		}},
		{name: "with a sidecar already", want: 1, edit: func(p *corev1.PodTemplateSpec) {
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.InitContainers = []corev1.Container{{Name: "semproxy", Image: "mine", RestartPolicy: &always}}
		}},
		{name: "with init containers and volumes of its own", want: 1, engine: "vllm", port: "8000", edit: func(p *corev1.PodTemplateSpec) {
			p.Spec.InitContainers = []corev1.Container{{Name: "download", Image: "busybox"}}
			p.Spec.Volumes = []corev1.Volume{{Name: "models"}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "models", MountPath: "/models"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			where := ns
			if c.namespace != "" {
				where = c.namespace
			}
			pod, err := admit(t, where, asPod(engine("llama", c.edit)))
			if c.denied != "" {
				if err == nil || !strings.Contains(err.Error(), c.denied) {
					t.Errorf("got %v, want it denied with %q", err, c.denied)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := sidecars(&pod.Spec); got != c.want {
				t.Fatalf("got %d sidecars, want %d", got, c.want)
			}
			if c.engine == "" {
				return
			}
			if pod.Spec.InitContainers[0].Name != "semproxy" {
				t.Errorf("the first init container is %s: downloads of the pod would not have the sidecar", pod.Spec.InitContainers[0].Name)
			}
			if mountAt(container(t, &pod.Spec, c.engine), "/run/semproxy") == "" {
				t.Errorf("%s was not taken for the engine", c.engine)
			}
			if env := text(t, pod.Spec.InitContainers[0].Env); !strings.Contains(env, "http://127.0.0.1:"+c.port+"\n") {
				t.Errorf("the sidecar is not told of port %s:\n%s", c.port, env)
			}
		})
	}
}

func TestTwoReleasesInjectOnce(t *testing.T) {
	ns := namespace(t, nil)
	install(t, ns, "one", "")
	install(t, ns, "two", "admin: { port: 9091 }\n")
	injects(t, ns)
	by := func(label string) string {
		t.Helper()
		d := engine("llama", func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/inject"] = label })
		pod, err := admit(t, ns, asPod(d))
		if err != nil {
			t.Fatal(err)
		}
		if got := sidecars(&pod.Spec); got != 1 {
			t.Fatalf("label %s: got %d sidecars, want 1", label, got)
		}
		config := ""
		for _, v := range pod.Spec.Volumes {
			if v.Name == "semproxy-config" {
				config = v.ConfigMap.Name
			}
		}
		if want := pod.Labels["semproxy.io/release"] + "-config"; config != want {
			t.Errorf("label %s: the sidecar is of %s, the pod's label says %s", label, config, want)
		}
		return config
	}
	until(t, "both releases' policies are in force", func() error {
		for label, want := range map[string]string{"one-semproxy": "one-semproxy-config", "two-semproxy": "two-semproxy-config"} {
			d := engine("llama", func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/inject"] = label })
			pod, err := admit(t, ns, asPod(d))
			if err != nil {
				return err
			}
			if !strings.Contains(text(t, pod.Spec.Volumes), want) {
				return fmt.Errorf("label %s: no volume of %s", label, want)
			}
		}
		return nil
	})
	by("true")
	deploy(t, ns, engine("llama", nil))
}

func TestARestrictedNamespaceTakesTheInjectedPod(t *testing.T) {
	ns := namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"})
	install(t, ns, "kv", "data: { enabled: true }\n")
	secure := func(p *corev1.PodTemplateSpec) {
		yes, no, user := true, false, int64(1000)
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: "RuntimeDefault"}}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	}
	injectsEach(t, ns, secure)
	pod := deploy(t, ns, engine("llama", secure))
	if sidecars(&pod.Spec) != 1 {
		t.Errorf("got %d sidecars, want 1", sidecars(&pod.Spec))
	}
	// The level is enforced here: what it forbids is refused.
	if _, err := admit(t, ns, asPod(engine("bad", nil))); err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("an engine as root: got %v, want a violation of PodSecurity", err)
	}
}
