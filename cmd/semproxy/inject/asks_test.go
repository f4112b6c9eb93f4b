package inject

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const asking = `metadata: { labels: { semproxy.io/inject: "true" } }, spec: { containers: [ { name: e } ] }`

func TestAnObjectOfAnUnknownKindThatAsksIsRefusedByNameAndPlace(t *testing.T) {
	for name, c := range map[string]struct{ manifest, want string }{
		"RayService": {"kind: RayService\nmetadata: { name: ray }\nspec: { rayClusterConfig: { headGroupSpec: { template: { " + asking + " } } } }\n",
			"RayService/ray: asks for the sidecar at spec.rayClusterConfig.headGroupSpec.template.metadata.labels"},
		"a list of groups": {"kind: RayCluster\nmetadata: { name: r }\nspec: { workerGroupSpecs: [ {}, { template: { " + asking + " } } ] }\n",
			"RayCluster/r: asks for the sidecar at spec.workerGroupSpecs[1].template.metadata.labels"},
		"PyTorchJob":       {"kind: PyTorchJob\nmetadata: { name: j }\nspec: { pytorchReplicaSpecs: { Master: { template: { " + asking + " } } } }\n", "pytorchReplicaSpecs.Master.template"},
		"a pod's spec":     {"kind: LLMInferenceService\nmetadata: { name: l, labels: { semproxy.io/inject: 'true' } }\nspec: { template: { containers: [ { name: e } ] } }\n", "asks for the sidecar at metadata.labels"},
		"podLabels":        {"kind: NIMService\nmetadata: { name: n }\nspec: { podLabels: { semproxy.io/inject: demo } }\n", "at spec.podLabels"},
		"in a list":        {"kind: List\nitems:\n- kind: RayService\n  metadata: { name: ray }\n  spec: { template: { " + asking + " } }\n", "RayService/ray"},
		"a transformer":    {"kind: InferenceService\nmetadata: { name: s }\nspec: { transformer: { labels: { semproxy.io/inject: 'true' }, containers: [ { name: e } ] } }\n", "InferenceService/s: asks for the sidecar at spec.transformer.labels"},
		"beside a known":   {"kind: Deployment\nmetadata: { name: d }\nspec: { template: { " + asking + " }, other: { " + asking + " } }\n", "Deployment/d: asks for the sidecar at spec.other.metadata.labels"},
		"by an anchor":     {"kind: RayService\nmetadata: { name: ray }\nspec: { a: &t { " + asking + " }, b: *t }\n", "at spec.a.metadata.labels"},
		"labels in a list": {"kind: Thing\nspec: { podLabels: [ { name: semproxy.io/inject, value: 'true' } ], containers: [ { name: e } ] }\n", "at spec.podLabels[0]"},
		"merged in a line": {"kind: Thing\nspec: { <<: { a: { " + asking + " } }, b: 1 }\n", "at spec.a.metadata.labels"},
		"inside itself":    {"kind: RayService\nspec: &a { b: *a }\n", "an anchor contains itself"},
	} {
		got, _, err := filter(t, "kind: ConfigMap\n---\n"+c.manifest, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || got != "" {
			t.Errorf("%s: got %v and %q, want an error with %q and nothing written", name, err, got, c.want)
		}
	}
}

func TestLabelsThatAnObjectMerelyCarriesAreNoQuestion(t *testing.T) {
	for name, manifest := range map[string]string{
		"a Service":      "kind: Service\nmetadata: { labels: { semproxy.io/inject: 'true' } }\nspec: { selector: { semproxy.io/inject: 'true' } }\n",
		"a selector":     "kind: PodMonitor\nspec: { selector: { matchLabels: { semproxy.io/inject: 'true' } } }\n",
		"another value":  "kind: RayService\nspec: { template: { metadata: { labels: { semproxy.io/inject: 'false' } }, spec: { containers: [ { name: e } ] } } }\n",
		"done by hand":   "kind: RayService\nspec: { template: { metadata: { labels: { semproxy.io/inject: 'true' } }, spec: { initContainers: [ { name: semproxy } ], containers: [ { name: e } ] } } }\n",
		"nobody's claim": "kind: StatefulSet\nspec: { volumeClaimTemplates: [ { metadata: { labels: { semproxy.io/inject: 'true' } }, spec: {} } ] }\n",
	} {
		if got, r, err := filter(t, manifest, Options{}); err != nil || got != manifest || len(r.Injected)+len(r.Mislabelled) != 0 {
			t.Errorf("%s: got %v, %+v and\n%s\nwant it unchanged", name, err, r, got)
		}
	}
}

func TestALabelAtTheObjectIsSaidToDoNothing(t *testing.T) {
	for kind, want := range map[string]int{"Deployment": 1, "Rollout": 1, "Service": 0} {
		_, r, err := filter(t, "kind: "+kind+"\nmetadata: { name: x, labels: { semproxy.io/inject: 'true' } }\nspec: { template: { spec: { containers: [ { name: e } ] } } }\n", Options{})
		if kind == "Service" {
			if err == nil {
				t.Error("an unknown kind with containers and the label: got no error")
			}
			continue
		}
		if err != nil || len(r.Mislabelled) != want || len(r.Injected) != 0 {
			t.Errorf("%s: got %+v, %v, want %d", kind, r, err, want)
		}
	}
}

// containersOf reads a manifest as Kubernetes does: name -> mount paths.
func containersOf(t *testing.T, manifest string, at ...string) map[string]string {
	t.Helper()
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(manifest), &n); err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	got := map[string]string{}
	for _, c := range items(get(&n, append(at, "containers")...)) {
		var mounts []string
		for _, m := range items(get(c, "volumeMounts")) {
			mounts = append(mounts, textOf(get(m, "mountPath")))
		}
		got[textOf(get(c, "name"))] = strings.Join(mounts, " ")
	}
	return got
}

func TestOnlyTheEnginesContainerIsChangedWhateverAnchorsShare(t *testing.T) {
	const head = "kind: Deployment\nmetadata: { name: v }\nspec:\n  template:\n    metadata: { labels: { semproxy.io/inject: 'true' } }\n    spec:\n"
	for name, c := range map[string]struct {
		manifest string
		want     map[string]string
	}{
		"a merge of the engine": {head + "      containers:\n      - &base { name: e, image: i, env: [ { name: A } ] }\n      - { <<: *base, name: side }\n",
			map[string]string{"e": "/run/semproxy /dev/shm", "side": ""}},
		"the engine merges": {head + "      containers:\n      - &base { name: side, image: i, volumeMounts: [ { name: m, mountPath: /m } ] }\n      - { <<: *base, name: e }\n",
			map[string]string{"side": "/m", "e": "/m /run/semproxy /dev/shm"}},
		"a list of mounts": {head + "      containers:\n      - { name: e, volumeMounts: &m [ { name: m, mountPath: /m } ] }\n      - { name: side, volumeMounts: *m }\n",
			map[string]string{"e": "/m /run/semproxy /dev/shm", "side": "/m"}},
		"the engine is an alias": {"x: &c { name: e, image: i }\n" + head + "      containers: [ { name: side }, *c ]\n", map[string]string{"side": "", "e": "/run/semproxy /dev/shm"}},
		"several merged": {head + "      containers:\n      - { name: side, x: &a { image: i }, y: &b { volumeMounts: [ { name: m, mountPath: /m } ] } }\n      - { <<: [*a, *b], name: e }\n",
			map[string]string{"side": "", "e": "/m /run/semproxy /dev/shm"}},
		"the containers are merged": {"x: &p\n  containers: [ { name: e } ]\n" + head + "      <<: *p\n      restartPolicy: Always\n", map[string]string{"e": "/run/semproxy /dev/shm"}},
	} {
		manifest := strings.Replace(c.manifest, "semproxy.io/inject: 'true'", "semproxy.io/inject: 'true' }, annotations: { semproxy.io/engine-container: e", 1)
		text, r, err := filter(t, manifest, Options{})
		if err != nil || len(r.Injected) != 1 {
			t.Fatalf("%s: got %v, %v", name, r, err)
		}
		got := containersOf(t, text, "spec", "template", "spec")
		for k, want := range c.want {
			if got[k] != want {
				t.Errorf("%s: container %s mounts %q, want %q in\n%s", name, k, got[k], want, text)
			}
		}
	}
}

// What an anchor holds counts where its aliases put it, and there only.
func TestPodsThatAreWrittenOnceAreAllServed(t *testing.T) {
	const template = "{ " + asking + " }"
	for name, c := range map[string]struct {
		manifest string
		want     int
	}{
		"both templates of a set are one":   {"kind: LeaderWorkerSet\nspec: { leaderWorkerTemplate: { leaderTemplate: &t " + template + ", workerTemplate: *t } }\n", 2},
		"the same, by their spec":           {"kind: LeaderWorkerSet\nspec: { leaderWorkerTemplate: { leaderTemplate: { metadata: &m { labels: { semproxy.io/inject: 'true' } }, spec: &s { containers: [ { name: e } ] } }, workerTemplate: { metadata: *m, spec: *s } } }\n", 2},
		"a member of the author's holds it": {"kind: Deployment\nx-template: &t " + template + "\nspec: { template: *t }\n", 1},
		"the same, merged":                  {"kind: Deployment\nx-template: &t " + template + "\nspec: { template: { <<: *t } }\n", 1},
		"another object merges the first":   {"kind: List\nitems:\n- &d { kind: Deployment, spec: { template: " + template + " } }\n- { <<: *d, spec: { template: { spec: { containers: [ { name: e } ] } } } }\n", 1},
	} {
		if got, _, err := filter(t, c.manifest, Options{}); err != nil || sidecars(got) != c.want {
			t.Errorf("%s: got %v and\n%s\nwant %d sidecars", name, err, got, c.want)
		}
	}
}

func TestWhatAnAnchorSharesWithAnotherObjectStays(t *testing.T) {
	manifest := "kind: List\nitems:\n- kind: Deployment\n  metadata: { name: a }\n  spec:\n    template: &t\n      metadata: { labels: { semproxy.io/inject: 'true', app: x } }\n" +
		"      spec: &s { containers: [ { name: e } ], volumes: &v [ { name: d } ] }\n" +
		"- kind: Deployment\n  metadata: { name: b }\n  spec: { template: { metadata: { labels: { app: y } }, spec: *s } }\n- kind: Thing\n  volumes: *v\n  env: &keep [ 1 ]\n  more: *keep\n"
	text, r, err := filter(t, manifest, Options{})
	if err != nil || len(r.Injected) != 1 || r.Injected[0] != "Deployment/a" {
		t.Fatalf("got %v, %v", r, err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	all := items(get(&n, "items"))
	if len(items(get(all[1], "spec", "template", "spec", "volumes"))) != 1 || get(all[1], "spec", "template", "spec", "initContainers") != nil || len(items(get(all[2], "volumes"))) != 1 {
		t.Errorf("got\n%s\nwant b and the thing as they were", text)
	}
	if !strings.Contains(text, "*keep") {
		t.Errorf("got\n%s\nwant the aliases of what is not changed", text)
	}
}

func TestWhatIsNotChangedKeepsItsBytes(t *testing.T) {
	manifest := `# head
kind:   Deployment
metadata: { name:   x,   labels: { app: vllm } }   # odd spacing
spec:
  template:
    metadata:
      labels:
        semproxy.io/inject: "true"
        app: "vllm"   # a comment
    spec:
      containers:
      - name: vllm
        args: ["--kv-transfer-config",   '{"kv_connector": "X"}']
        command:
          - sh
          - -c
          - >-
            one
            two

            three
        volumeMounts:
        - { name: models,   mountPath: /models }

      - name: side
      volumes:
        - name: models

# foot
`
	got, _, err := filter(t, manifest, Options{})
	if err != nil {
		t.Fatal(err)
	}
	left := manifest
	added := 0
	for l := range strings.Lines(got) { // every line of the input is there, in its order
		if first, rest, _ := strings.Cut(left, "\n"); first+"\n" == l {
			left = rest
			continue
		}
		added++
	}
	if left != "" || added < 10 || sidecars(got) != 1 {
		t.Errorf("got\n%s\nwhere the lines from %.80q on are not as they were", got, left)
	}
	if want := map[string]string{"vllm": "/models /run/semproxy /dev/shm", "side": ""}; containersOf(t, got, "spec", "template", "spec")["vllm"] != want["vllm"] {
		t.Errorf("got\n%s", got)
	}
}
