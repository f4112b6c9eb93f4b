package helm

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOneReleaseServesTheNamespacesThatItNames(t *testing.T) {
	home, first, second := namespace(t, nil), namespace(t, nil), namespace(t, nil)
	install(t, home, "kv", fmt.Sprintf("injection: { namespaces: [%s, %s] }\n", first, second))
	for _, ns := range []string{first, second} {
		injects(t, ns)
		pod := deploy(t, ns, engine("llama", nil))
		// What the sidecar mounts is there, or it would not start.
		for _, v := range pod.Spec.Volumes {
			if v.ConfigMap == nil {
				continue
			}
			if _, err := k.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), v.ConfigMap.Name, metav1.GetOptions{}); err != nil {
				t.Error(err)
			}
		}
		if _, err := k.Client.NetworkingV1().NetworkPolicies(ns).Get(t.Context(), "kv-semproxy", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	if pod, err := admit(t, home, asPod(engine("llama", nil))); err != nil || sidecars(&pod.Spec) != 0 {
		t.Errorf("in the release's own namespace, which it does not name: got %v, want the pod left alone", err)
	}
}

func TestTheDeploymentOfModeEngineRunsWhereRestrictedIsEnforced(t *testing.T) {
	for _, version := range helms {
		t.Run(version, func(t *testing.T) {
			ns := namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
			helm(t, version, "install", "kv", chart, "-n", ns, "--set", "injection.mode=engine,engine.deployment.image=vllm/vllm-openai:v0.11.0", "--wait", "--timeout", "1m")
			t.Cleanup(func() { _, _ = tryHelm(t, version, "uninstall", "kv", "-n", ns, "--wait") })
			pods, err := k.Client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "semproxy.io/release=kv-semproxy"})
			if err != nil || len(pods.Items) != 1 {
				t.Fatalf("got %d pods, %v; want 1", len(pods.Items), err)
			}
			pod := &pods.Items[0]
			if pod.Status.Phase != corev1.PodRunning || sidecars(&pod.Spec) != 1 || pod.Spec.InitContainers[0].Name != "semproxy" {
				t.Errorf("the pod is %s with %d sidecars", pod.Status.Phase, sidecars(&pod.Spec))
			}
			c, e := container(t, &pod.Spec, "semproxy"), container(t, &pod.Spec, "engine")
			for _, path := range []string{"/dev/shm", "/run/semproxy"} {
				if v := mountAt(c, path); v == "" || v != mountAt(e, path) {
					t.Errorf("%s: the sidecar has volume %q, the engine %q; want one", path, v, mountAt(e, path))
				}
			}
			helm(t, version, "test", "kv", "-n", ns)
			// The test's pod is no way for clients.
			found, err := k.Client.DiscoveryV1().EndpointSlices(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kv-semproxy"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range found.Items {
				for _, e := range s.Endpoints {
					got = append(got, e.Addresses...)
				}
			}
			if !slices.Equal(got, []string{pod.Status.PodIP}) {
				t.Errorf("the Service leads to %v, want the engine's pod %s", got, pod.Status.PodIP)
			}
		})
	}
}
