package chart

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// policies evaluates the chart's admission policies as the API server does.
type policies struct {
	matcher    matchconditions.Matcher
	patchers   []patch.Patcher
	validator  validating.Validator
	compiler   *plugincel.CompositedCompiler
	validation *plugincel.CompositedCompiler
}

// compile takes the policies out of rendered manifests; what does not compile fails the test.
func compile(t testing.TB, all []object) policies {
	t.Helper()
	var m admissionv1.MutatingAdmissionPolicy
	convert(t, find(t, all, "MutatingAdmissionPolicy", "demo-semproxy.llm.semproxy.io"), &m)
	p := policies{compiler: compiler(t)}
	opts := plugincel.OptionalVariableDeclarations{HasAuthorizer: true}
	p.compiler.CompileAndStoreVariables(variables(m.Spec.Variables), opts, environment.StoredExpressions)
	var conditions []plugincel.ExpressionAccessor
	for i := range m.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&m.Spec.MatchConditions[i]))
	}
	compiled := p.compiler.CompileCondition(conditions, opts, environment.StoredExpressions)
	noErrors(t, "matchConditions", compiled.CompilationErrors())
	p.matcher = matchconditions.NewMatcher(compiled, m.Spec.FailurePolicy, "policy", "mutate", m.Name)
	opts.HasPatchTypes = true
	for _, mutation := range m.Spec.Mutations {
		evaluator := p.compiler.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}, opts, environment.StoredExpressions)
		noErrors(t, "mutations", evaluator.CompilationErrors())
		p.patchers = append(p.patchers, patch.NewJSONPatcher(evaluator))
	}

	var v admissionv1.ValidatingAdmissionPolicy
	convert(t, find(t, all, "ValidatingAdmissionPolicy", "demo-semproxy.llm.semproxy.io"), &v)
	p.validation = compiler(t)
	opts.HasPatchTypes = false
	p.validation.CompileAndStoreVariables(variables(v.Spec.Variables), opts, environment.StoredExpressions)
	var conds, messages []plugincel.ExpressionAccessor
	for _, r := range v.Spec.Validations {
		conds = append(conds, &validating.ValidationCondition{Expression: r.Expression, Message: r.Message, Reason: r.Reason})
		if r.MessageExpression == "" {
			messages = append(messages, nil)
			continue
		}
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: r.MessageExpression})
	}
	rules := p.validation.CompileCondition(conds, opts, environment.StoredExpressions)
	texts := p.validation.CompileCondition(messages, opts, environment.StoredExpressions)
	noErrors(t, "validations", rules.CompilationErrors())
	noErrors(t, "messageExpressions", texts.CompilationErrors())
	none := p.validation.CompileCondition(nil, opts, environment.StoredExpressions)
	p.validator = validating.NewValidator(rules, nil, none, texts, v.Spec.FailurePolicy, nil)
	return p
}

func compiler(t testing.TB) *plugincel.CompositedCompiler {
	t.Helper()
	c, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func variables(all []admissionv1.Variable) []plugincel.NamedExpressionAccessor {
	var named []plugincel.NamedExpressionAccessor
	for _, v := range all {
		named = append(named, &validating.Variable{Name: v.Name, Expression: v.Expression})
	}
	return named
}

func noErrors(t testing.TB, what string, all []error) {
	t.Helper()
	for _, err := range all {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func convert(t testing.TB, from object, to any) {
	t.Helper()
	text, err := yaml.Marshal(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, to); err != nil {
		t.Fatal(err)
	}
}

// admit creates the pod: it is what the policies make of it and why it is denied.
func (p policies) admit(t testing.TB, pod *corev1.Pod) (*corev1.Pod, []string) {
	t.Helper()
	v := versioned(pod)
	ctx := p.compiler.CreateContext(context.Background())
	if match := p.matcher.Match(ctx, v, nil, nil); match.Error != nil {
		t.Fatalf("matchConditions: %v", match.Error)
	} else if match.Matches {
		for _, patcher := range p.patchers {
			changed, err := patcher.Patch(ctx, patch.Request{
				MatchedResource: podResource, VersionedAttributes: v, ObjectInterfaces: admission.NewObjectInterfacesFromScheme(scheme.Scheme),
				Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "llm"}},
			}, celconfig.RuntimeCELCostBudget)
			if err != nil {
				t.Fatalf("mutation: %v", err)
			}
			pod = changed.(*corev1.Pod)
			v = versioned(pod)
		}
	}
	var denied []string
	result := p.validator.Validate(p.validation.CreateContext(context.Background()), podResource, v, nil,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "llm"}}, celconfig.RuntimeCELCostBudget, nil)
	for _, d := range result.Decisions {
		if d.Action != validating.ActionAdmit {
			denied = append(denied, d.Message)
		}
	}
	return pod, denied
}

var podResource = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

func versioned(pod *corev1.Pod) *admission.VersionedAttributes {
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Pod"}
	pod = pod.DeepCopy()
	pod.SetGroupVersionKind(kind)
	v := &admission.VersionedAttributes{
		Attributes:    admission.NewAttributesRecord(pod, nil, kind, "llm", pod.Name, podResource, "", admission.Create, &metav1.CreateOptions{}, false, nil),
		VersionedKind: kind,
	}
	v.VersionedObject.Set(pod)
	return v
}

// podOf reads a pod.
func podOf(t testing.TB, text string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(text), &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

const plainPod = `
apiVersion: v1
kind: Pod
metadata: { name: vllm, labels: { app: vllm, semproxy.io/inject: "true" } }
spec:
  containers: [ { name: vllm, image: "vllm:1" } ]
`

// pods are what the policies and `semproxy inject` are compared on.
var pods = map[string]string{
	"plain": plainPod,
	"its own /dev/shm, port and name": `
apiVersion: v1
kind: Pod
metadata:
  name: vllm
  labels: { semproxy.io/inject: demo-semproxy }
  annotations: { semproxy.io/engine-port: "8001", semproxy.io/engine-container: engine }
spec:
  initContainers: [ { name: download, image: "d:1" } ]
  containers:
    - { name: router, image: "r:1", volumeMounts: [ { name: other, mountPath: /dev/shm } ] }
    - { name: engine, image: "vllm:1", volumeMounts: [ { name: models, mountPath: /models }, { name: dshm, mountPath: /dev/shm } ] }
  volumes:
    - { name: models, emptyDir: {} }
    - { name: other, emptyDir: {} }
    - { name: dshm, emptyDir: { medium: Memory, sizeLimit: 20Gi } }
`,
	"a trailing slash": `
apiVersion: v1
kind: Pod
metadata: { name: vllm, labels: { semproxy.io/inject: "true" } }
spec:
  containers: [ { name: vllm, image: "vllm:1", volumeMounts: [ { name: dshm, mountPath: /dev/shm/ } ] } ]
  volumes: [ { name: dshm, emptyDir: { medium: Memory } } ]
`,
	"another release's label stays": `
apiVersion: v1
kind: Pod
metadata: { name: vllm, labels: { semproxy.io/inject: "true", semproxy.io/release: mine } }
spec:
  containers: [ { name: vllm, image: "vllm:1" } ]
`,
}

// values are the configurations under which they are compared.
var values = map[string]string{
	"default": `{}`,
	"everything": `
engine: { kind: vllm, port: 8005, apiKeySecret: { name: engine-key } }
nats: { url: "tls://nats:4222", existingSecret: nats, secretKeys: { creds: sidecar.creds, ca: ca.crt } }
redis: { addrs: "a:6379,b:6379", tls: true, existingSecret: redis, secretKeys: { username: user, ca: ca.crt } }
encryption: { existingSecret: keys }
admin: { existingSecret: admin }
otel: { endpoint: "http://otel:4318", headersSecret: { name: otel }, resourceAttributes: { team: "a & <b> \"c\" \\ d" } }
proxy: { tls: { existingSecret: tls }, identity: { existingSecret: clients } }
data: { enabled: true }
gpu: { access: visibleDevices }
extraEnv: [ { name: EMPTY, value: "" }, { name: QUOTES, value: "it's \"quoted\"\n\tand ${ENGINE_PORT} on two lines" } ]
`,
	"two planes": `
planes: { split: true, adminPort: 9999 }
nats: { url: "tls://nats:4222", existingSecret: nats, secretKeys: { creds: sidecar.creds, ca: ca.crt } }
redis: { addrs: "a:6379,b:6379", existingSecret: redis }
encryption: { existingSecret: keys }
admin: { existingSecret: admin }
proxy: { identity: { existingSecret: clients } }
data: { enabled: true }
gpu: { access: visibleDevices }
`,
	"no shared memory, no proxy": "sharedMemory: { enabled: false }\nproxy: { enabled: false }\n",
}

func TestInjectMakesOfAPodWhatTheAdmissionPolicyMakes(t *testing.T) {
	semproxy := binary(t, "semproxy-static")
	for what, vals := range values {
		text := render(t, valuesFile(t, vals))
		p := compile(t, objects(t, text))
		injection := writeFile(t, "injection.yaml", text)
		for name, manifest := range pods {
			t.Run(what+"/"+name, func(t *testing.T) {
				want, denied := p.admit(t, podOf(t, manifest))
				if len(denied) > 0 {
					t.Fatalf("denied: %q", denied)
				}
				if len(want.Spec.InitContainers) == 0 || want.Spec.InitContainers[0].Name != "semproxy" {
					t.Fatalf("got no sidecar first in %s", asJSON(t, want.Spec))
				}
				out, err := output(t, manifest, semproxy, "inject", "--injection", injection)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := asJSON(t, podOf(t, out)), asJSON(t, want); got != want {
					t.Errorf("inject gives\n%s\nthe policy\n%s", got, want)
				}
			})
		}
	}
}

func TestAPodIsInjectedOnce(t *testing.T) {
	p := compile(t, objects(t, render(t)))
	once, _ := p.admit(t, podOf(t, plainPod))
	twice, denied := p.admit(t, once)
	if len(denied) > 0 || asJSON(t, once) != asJSON(t, twice) {
		t.Errorf("the second time: denied %q, got\n%s\nwant\n%s", denied, asJSON(t, twice), asJSON(t, once))
	}
}

func TestThePoliciesAndInjectRefuseTheSame(t *testing.T) {
	semproxy := binary(t, "semproxy-static")
	text := render(t)
	dra := render(t, "--set=gpu.access=dra")
	for _, c := range []struct {
		name, rendered, annotation, want string
	}{
		{"an engine that is not there", text, "semproxy.io/engine-container: vlm", `the engine's container is to be "vlm", but the pod has only`},
		{"no name", text, `semproxy.io/engine-container: ""`, `the engine's container is to be ""`},
		{"a port that is no number", text, "semproxy.io/engine-port: http", "must be the port on which the engine listens"},
		{"a port of the sidecar", text, `semproxy.io/engine-port: "8080"`, "none of the sidecar's"},
		{"a port out of range", text, `semproxy.io/engine-port: "65536"`, "1 to 65535"},
		{"a port with a leading zero", text, `semproxy.io/engine-port: "0800"`, "1 to 65535"},
		{"no claim", dra, "a: b", `the pod needs an entry "gpu" in spec.resourceClaims`},
	} {
		t.Run(c.name, func(t *testing.T) {
			manifest := strings.Replace(plainPod, "metadata: {", "metadata: { annotations: { "+c.annotation+" },", 1)
			_, denied := compile(t, objects(t, c.rendered)).admit(t, podOf(t, manifest))
			if len(denied) != 1 || !strings.Contains(denied[0], c.want) {
				t.Errorf("the policy: got %q, want one with %q", denied, c.want)
			}
			_, err := output(t, manifest, semproxy, "inject", "--injection", writeFile(t, "injection.yaml", c.rendered))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("inject: got %v, want %q", err, c.want)
			}
		})
	}
}

func TestAPodThatAskedAndWasNotInjectedIsDenied(t *testing.T) {
	p := compile(t, objects(t, render(t)))
	p.patchers = nil // the mutating policy is gone, or disabled
	if _, denied := p.admit(t, podOf(t, plainPod)); len(denied) != 1 || !strings.Contains(denied[0], "did not get it") {
		t.Errorf("got %q, want that it did not get the sidecar", denied)
	}
}
