package helm

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// The pod that the policy makes of a manifest, and the pod that the API server makes of what "semproxy inject" makes of it, are one.
func TestSemproxyInjectMakesThePodThatThePolicyMakes(t *testing.T) {
	ns, plain := namespace(t, nil), namespace(t, nil)
	install(t, ns, "kv", "data: { enabled: true }\nnats: { url: nats://nats.nats:4222, existingSecret: sidecar, secretKeys: { nkey: seed } }\n")
	injects(t, ns)
	cm, err := k.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), "kv-semproxy-injection", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	injection := filepath.Join(t.TempDir(), "injection.yaml")
	if err := os.WriteFile(injection, []byte(cm.Data["injection.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*corev1.PodTemplateSpec){
		"a plain engine": nil,
		"an engine with shared memory": func(p *corev1.PodTemplateSpec) {
			p.Spec.Volumes = []corev1.Volume{{Name: "dshm", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "dshm", MountPath: "/dev/shm/"}}
		},
		"the second container, another port, init containers": func(p *corev1.PodTemplateSpec) {
			p.Annotations = map[string]string{"semproxy.io/engine-container": "vllm", "semproxy.io/engine-port": "9000"}
			p.Spec.Containers = append([]corev1.Container{{Name: "logger", Image: "busybox"}}, p.Spec.Containers...)
			p.Spec.InitContainers = []corev1.Container{{Name: "download", Image: "busybox"}}
		},
		"a pod of a release's own": func(p *corev1.PodTemplateSpec) { p.Labels["semproxy.io/release"] = "mine" },
		"a pod that does not ask":  func(p *corev1.PodTemplateSpec) { delete(p.Labels, "semproxy.io/inject") },
	} {
		t.Run(name, func(t *testing.T) {
			pod := asPod(engine("llama", func(p *corev1.PodTemplateSpec) {
				no := false
				p.Spec.AutomountServiceAccountToken = &no // its volume has another name each time
				if edit != nil {
					edit(p)
				}
			}))
			want, err := admit(t, ns, pod.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			pod.APIVersion, pod.Kind = "v1", "Pod"
			manifest, err := json.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(semproxy, "inject", "--injection", injection)
			cmd.Stdin, cmd.Stderr = bytes.NewReader(manifest), os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var filtered corev1.Pod
			if err := yaml.UnmarshalStrict(out, &filtered); err != nil {
				t.Fatal(err)
			}
			got, err := admit(t, plain, &filtered)
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, got.Spec, want.Spec) || !sameJSON(t, got.Labels, want.Labels) || !sameJSON(t, got.Annotations, want.Annotations) {
				t.Errorf("semproxy inject:\n%s\nthe policy:\n%s", text(t, got), text(t, want))
			}
		})
	}
}
