package helm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const chart = "../../helm/semproxy"

// helms are the versions of helm that the chart is installed with.
var helms = []string{"helm4", "helm3"}

// helm runs a helm command and fails the test where it fails.
func helm(t *testing.T, version string, args ...string) string {
	t.Helper()
	out, err := tryHelm(t, version, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", version, strings.Join(args, " "), err, out, k.Logs())
	}
	return out
}

func tryHelm(t *testing.T, version string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(filepath.Join(programs, version), args...)
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + k.Kubeconfig, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// install makes a release for the length of the test. Values are YAML.
func install(t *testing.T, ns, release, values string) {
	t.Helper()
	helm(t, "helm4", "install", release, chart, "-n", ns, "-f", valuesFile(t, values))
	t.Cleanup(func() { _, _ = tryHelm(t, "helm4", "uninstall", release, "-n", ns, "--wait") })
}

func valuesFile(t *testing.T, values string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// namespace makes one, which is deleted with all that is in it.
func namespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	need(t)
	ns, err := k.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-", Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	until(t, "the namespace has its service account", func() error {
		_, err := k.Client.CoreV1().ServiceAccounts(ns.Name).Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

// until asks until there is no error; a minute at most.
func until(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute passed before %s: %v\n%s", what, err, k.Logs())
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// engine is a Deployment of an inference engine that asks for the sidecar; edit changes its pods.
func engine(name string, edit func(*corev1.PodTemplateSpec)) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name, "semproxy.io/inject": "true"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "vllm", Image: "vllm/vllm-openai:v0.11.0", Args: []string{"--model", "meta-llama/Llama-3.1-8B-Instruct"}},
			}},
		},
	}}
	if edit != nil {
		edit(&d.Spec.Template)
	}
	return d
}

// asPod is the pod of a Deployment's template.
func asPod(d *appsv1.Deployment) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: d.Name, Labels: d.Spec.Template.Labels, Annotations: d.Spec.Template.Annotations},
		Spec: *d.Spec.Template.Spec.DeepCopy()}
}

// admit shows a pod to the API server without keeping it.
func admit(t *testing.T, ns string, pod *corev1.Pod) (*corev1.Pod, error) {
	t.Helper()
	return k.Client.CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// injects waits until the release's policies are in force, which is some time after they were made.
func injects(t *testing.T, ns string) {
	t.Helper()
	injectsEach(t, ns, nil)
}

// injectsEach is injects for pods that are edited so.
func injectsEach(t *testing.T, ns string, edit func(*corev1.PodTemplateSpec)) {
	t.Helper()
	until(t, "pods get the sidecar, and those whose engine is unknown are denied", func() error {
		d := engine("probe", edit)
		pod, err := admit(t, ns, asPod(d))
		if err != nil {
			return err
		}
		if sidecars(&pod.Spec) == 0 {
			return errors.New("the pod was not changed")
		}
		d.Spec.Template.Annotations = map[string]string{"semproxy.io/engine-container": "none"}
		if _, err := admit(t, ns, asPod(d)); err == nil {
			return errors.New("a pod whose engine is unknown was taken")
		}
		return nil
	})
}

// sidecars counts the containers of that name.
func sidecars(spec *corev1.PodSpec) (n int) {
	for _, c := range append(append([]corev1.Container{}, spec.InitContainers...), spec.Containers...) {
		if c.Name == "semproxy" {
			n++
		}
	}
	return n
}

func container(t *testing.T, spec *corev1.PodSpec, name string) *corev1.Container {
	t.Helper()
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	t.Fatalf("the pod has no container %s:\n%s", name, text(t, spec))
	return nil
}

// mountAt is the volume that a container has at a path; empty: none.
func mountAt(c *corev1.Container, path string) string {
	for _, m := range c.VolumeMounts {
		if strings.TrimSuffix(m.MountPath, "/") == path {
			return m.Name
		}
	}
	return ""
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sameJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

var errNotYet = errors.New("not yet")

func decode(t *testing.T, manifest string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(manifest), into); err != nil {
		t.Fatalf("%v\n%s", err, manifest)
	}
}
