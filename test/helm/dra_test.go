package helm

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/semproxy/semproxy/test/helm/controlplane"
)

const driver = "gpu.example.com"

// gpus tells the cluster of devices on its node, as a DRA driver does.
func gpus(t *testing.T, names ...string) {
	t.Helper()
	api := k.Client.ResourceV1()
	if _, err := api.DeviceClasses().Create(t.Context(), &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: driver}, Spec: resourcev1.DeviceClassSpec{
		Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "` + driver + `"`}}},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	node := controlplane.Node
	slice := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "gpus"}, Spec: resourcev1.ResourceSliceSpec{
		Driver: driver, NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1},
	}}
	for _, n := range names {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{Name: n})
	}
	if _, err := api.ResourceSlices().Create(t.Context(), slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = api.ResourceSlices().Delete(context.Background(), "gpus", metav1.DeleteOptions{})
		_ = api.DeviceClasses().Delete(context.Background(), driver, metav1.DeleteOptions{})
	})
}

func TestTheSchedulerGivesEngineAndSidecarOneGPU(t *testing.T) {
	ns := namespace(t, nil)
	gpus(t, "gpu-0")
	install(t, ns, "kv", "gpu: { access: dra, dra: { deviceClassName: "+driver+" } }\n")
	template := "kv-semproxy"
	claims := func(p *corev1.PodTemplateSpec) {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: &template}}
		p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "gpu"}}
	}
	injectsEach(t, ns, claims)
	pod := deploy(t, ns, engine("llama", claims))

	for _, name := range []string{"semproxy", "vllm"} {
		got := container(t, &pod.Spec, name).Resources.Claims
		if len(got) != 1 || got[0].Name != "gpu" {
			t.Errorf("%s claims %v, want gpu", name, got)
		}
	}
	if image := container(t, &pod.Spec, "semproxy").Image; !strings.HasSuffix(image, "-gpu") {
		t.Errorf("the sidecar's image is %s, want the one with GPU support", image)
	}
	if len(pod.Status.ResourceClaimStatuses) != 1 || pod.Status.ResourceClaimStatuses[0].ResourceClaimName == nil {
		t.Fatalf("the pod has the claims %v, want one", pod.Status.ResourceClaimStatuses)
	}
	claim, err := k.Client.ResourceV1().ResourceClaims(ns).Get(t.Context(), *pod.Status.ResourceClaimStatuses[0].ResourceClaimName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if claim.Status.Allocation == nil || len(claim.Status.Allocation.Devices.Results) != 1 || claim.Status.Allocation.Devices.Results[0].Device != "gpu-0" {
		t.Errorf("the claim is allocated %+v, want gpu-0", claim.Status.Allocation)
	}
	if len(claim.Status.ReservedFor) != 1 || claim.Status.ReservedFor[0].UID != pod.UID {
		t.Errorf("the claim is reserved for %v, want the pod", claim.Status.ReservedFor)
	}

	// There is one GPU, and both containers have it: another pod must wait.
	d, err := k.Client.AppsV1().Deployments(ns).Create(t.Context(), engine("second", claims), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the second pod is told to wait", func() error {
		pods, err := k.Client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return err
		}
		for _, p := range pods.Items {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && strings.Contains(c.Message, "claim") {
					return nil
				}
			}
		}
		return errNotYet
	})

	if _, err := admit(t, ns, asPod(engine("without", nil))); err == nil || !strings.Contains(err.Error(), "spec.resourceClaims") {
		t.Errorf("a pod without the claim: got %v, want it denied", err)
	}
}
