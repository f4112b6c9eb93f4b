package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A chart that uses the named templates gives its pods what `semproxy inject` would.
func TestTheNamedTemplatesGiveWhatInjectGives(t *testing.T) {
	for name, values := range map[string]string{
		"its own /dev/shm":      "{}",
		"the chart's":           "semproxy: { sharedMemory: { volume: dshm } }",
		"no shared memory":      "semproxy: { sharedMemory: { enabled: false } }",
		"two planes":            "semproxy: { planes: { split: true } }",
		"a folder and a secret": "semproxy: { data: { enabled: true }, admin: { existingSecret: token } }",
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "parent")
			if err := os.CopyFS(parent, os.DirFS("testdata/parent")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(parent, "charts", "semproxy"), os.DirFS(chartDir)); err != nil {
				t.Fatal(err)
			}
			text, err := helmTemplate(t, parent, newest, valuesFile(t, values))
			if err != nil {
				t.Fatal(err)
			}
			var set appsv1.StatefulSet
			convert(t, find(t, objects(t, text), "StatefulSet", "demo"), &set)
			got := corev1.Pod{Spec: set.Spec.Template.Spec}

			bare := `
kind: Pod
metadata: { name: x, labels: { semproxy.io/inject: "true" } }
spec: { containers: [ { name: vllm, image: "vllm:1" } ] }
`
			if strings.Contains(values, "dshm") {
				bare = strings.Replace(bare, `"vllm:1" }`, `"vllm:1", volumeMounts: [ { name: dshm, mountPath: /dev/shm } ] }`, 1)
			}
			out, err := output(t, bare, binary(t, "semproxy-static"), "inject", "--injection", writeFile(t, "injection.yaml", text))
			if err != nil {
				t.Fatal(err)
			}
			want := corev1.Pod{Spec: podOf(t, out).Spec}
			if strings.Contains(values, "dshm") {
				want.Spec.Containers[0].VolumeMounts = want.Spec.Containers[0].VolumeMounts[1:] // the parent's own
			}
			if got, want := asJSON(t, got), asJSON(t, want); got != want {
				t.Errorf("the templates give\n%s\ninject\n%s", got, want)
			}
			if set.Spec.Template.Labels["semproxy.io/release"] != "demo-semproxy" {
				t.Errorf("got labels %v", set.Spec.Template.Labels)
			}
		})
	}
}
