package helm

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// everything names all objects of a namespace and of the cluster, but for what comes and goes by itself.
func everything(t *testing.T, ns string) []string {
	t.Helper()
	lists, err := discovery.ServerPreferredResources(k.Client.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") || slices.Contains([]string{"Event", "Lease", "Namespace", "ComponentStatus", "Endpoints"}, r.Kind) {
				continue
			}
			resource := k.Dynamic.Resource(gv.WithResource(r.Name))
			found, err := resource.List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatalf("%s: %v", r.Name, err)
			}
			for _, o := range found.Items {
				if o.GetNamespace() == "" || o.GetNamespace() == ns {
					all = append(all, fmt.Sprintf("%s %s/%s", r.Kind, o.GetNamespace(), o.GetName()))
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestInstallUpgradeRollbackUninstall(t *testing.T) {
	for _, version := range helms {
		t.Run(version, func(t *testing.T) {
			ns := namespace(t, nil)
			before := everything(t, ns)
			run := func(args ...string) string { return helm(t, version, append(args, "-n", ns)...) }

			out := run("install", "kv", chart, "-f", valuesFile(t, policyOf("balanced")), "--wait")
			if !strings.Contains(out, "STATUS: deployed") || !strings.Contains(out, "NOTES:") {
				t.Errorf("install says\n%s", out)
			}
			injects(t, ns)
			checkTypes(t, "kv-semproxy."+ns+".semproxy.io")
			if got := policyFile(t, ns); !strings.Contains(got, "profile: balanced") {
				t.Errorf("the policy is\n%s", got)
			}
			old := deploy(t, ns, engine("llama", nil))
			run("test", "kv")

			run("upgrade", "kv", chart, "-f", valuesFile(t, policyOf("quality")+"resources: { limits: { memory: 3Gi } }\n"), "--wait")
			if got := policyFile(t, ns); !strings.Contains(got, "profile: quality") {
				t.Errorf("after the upgrade the policy is\n%s", got)
			}
			until(t, "new pods get the new sidecar", func() error { return memoryIs(t, ns, "3Gi") })
			same, err := k.Client.CoreV1().Pods(ns).Get(t.Context(), old.Name, metav1.GetOptions{})
			if err != nil || same.UID != old.UID {
				t.Errorf("the pod that was there is gone or another: %v", err)
			}

			run("rollback", "kv", "1", "--wait")
			if got := policyFile(t, ns); !strings.Contains(got, "profile: balanced") {
				t.Errorf("after the rollback the policy is\n%s", got)
			}
			until(t, "new pods get the first sidecar again", func() error { return memoryIs(t, ns, "2Gi") })

			run("uninstall", "kv", "--wait")
			now := int64(0)
			if err := k.Client.AppsV1().Deployments(ns).Delete(t.Context(), "llama", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
				t.Error(err)
			}
			until(t, "nothing is left", func() error {
				for _, o := range everything(t, ns) {
					if !slices.Contains(before, o) {
						return fmt.Errorf("%s is left", o)
					}
				}
				return nil
			})
			until(t, "pods are left alone", func() error {
				pod, err := admit(t, ns, asPod(engine("llama", nil)))
				if err == nil && sidecars(&pod.Spec) != 0 {
					err = errNotYet
				}
				return err
			})
		})
	}
}

func policyOf(profile string) string {
	return "policy: { tenants: { acme: { rules: [ { profile: " + profile + " } ] } } }\n"
}

func policyFile(t *testing.T, ns string) string {
	t.Helper()
	cm, err := k.Client.CoreV1().ConfigMaps(ns).Get(t.Context(), "kv-semproxy-policy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm.Data["policy.yaml"]
}

// memoryIs holds the memory limit of the sidecar that a new pod would get.
func memoryIs(t *testing.T, ns, want string) error {
	t.Helper()
	pod, err := admit(t, ns, asPod(engine("probe", nil)))
	if err != nil {
		return err
	}
	for _, c := range pod.Spec.InitContainers {
		if got := c.Resources.Limits[corev1.ResourceMemory]; got.String() != want {
			return fmt.Errorf("the sidecar's memory limit is %s, want %s", got.String(), want)
		}
	}
	return nil
}

// checkTypes waits until the controller has checked the validating policy's expressions, and wants no warning.
func checkTypes(t *testing.T, policy string) {
	t.Helper()
	until(t, "the expressions of "+policy+" are checked", func() error {
		p, err := k.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), policy, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if p.Status.TypeChecking == nil {
			return errNotYet
		}
		for _, w := range p.Status.TypeChecking.ExpressionWarnings {
			t.Errorf("%s: %s", w.FieldRef, w.Warning)
		}
		return nil
	})
}
