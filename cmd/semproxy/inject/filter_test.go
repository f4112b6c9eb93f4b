package inject

import (
	"strings"
	"testing"
)

const injection = `
apiVersion: semproxy.io/v1
kind: Injection
release: demo
optIn: ["true", demo]
engine:
  container: ""
  port: 8000
  volumeMounts: [{ name: run, mountPath: /run/semproxy }]
sharedMemory: { name: semproxy-shm, emptyDir: { medium: Memory } }
ports: [8080, 9090]
sidecar:
  name: semproxy
  env: [{ name: URL, value: "http://127.0.0.1:${ENGINE_PORT}" }]
  volumeMounts: [{ name: "${SHM_VOLUME}", mountPath: /dev/shm }]
volumes: [{ name: run, emptyDir: {} }]
`

func filter(t *testing.T, manifest string, o Options) (string, Report, error) {
	t.Helper()
	in, err := Read(strings.NewReader(injection))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	report, err := in.Filter(strings.NewReader(manifest), &out, o)
	return out.String(), report, err
}

// sidecars counts the containers of that name, in block and in flow style.
func sidecars(text string) int {
	return strings.Count(text, "name: semproxy\n") + strings.Count(text, "name: semproxy,")
}

const podSpec = `
      labels: { semproxy.io/inject: "true" }
    spec:
      containers:
        - name: engine # the first
`

func TestEveryKindGetsTheSidecar(t *testing.T) {
	template := "template:\n    metadata:" + podSpec
	for name, manifest := range map[string]string{
		"Pod":                   "kind: Pod\nmetadata: { name: x, labels: { semproxy.io/inject: demo } }\nspec: { containers: [ { name: engine } ] }\n",
		"Deployment":            "kind: Deployment\nmetadata: { name: x }\nspec:\n  " + template,
		"StatefulSet":           "kind: StatefulSet\nmetadata: { name: x }\nspec:\n  " + template,
		"DaemonSet":             "kind: DaemonSet\nmetadata: { name: x }\nspec:\n  " + template,
		"ReplicaSet":            "kind: ReplicaSet\nmetadata: { name: x }\nspec:\n  " + template,
		"ReplicationController": "kind: ReplicationController\nmetadata: { name: x }\nspec:\n  " + template,
		"Rollout":               "kind: Rollout\nmetadata: { name: x }\nspec:\n  " + template,
		"Job":                   "kind: Job\nmetadata: { name: x }\nspec:\n  " + template,
		"PodTemplate":           "kind: PodTemplate\nmetadata: { name: x }\n" + strings.ReplaceAll(template, "\n  ", "\n"),
		"CronJob": "kind: CronJob\nmetadata: { name: x }\nspec:\n  jobTemplate:\n    spec:\n      template:\n        metadata: { labels: { semproxy.io/inject: 'true' } }\n" +
			"        spec: { containers: [ { name: engine } ] }\n",
		"InferenceService": "kind: InferenceService\nmetadata: { name: x, labels: { semproxy.io/inject: 'true' } }\nspec:\n  predictor:\n    model: { modelFormat: { name: huggingface } }\n",
		"List":             "kind: List\nitems:\n  - kind: Pod\n    metadata: { name: x, labels: { semproxy.io/inject: 'true' } }\n    spec: { containers: [ { name: engine } ] }\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, report, err := filter(t, manifest, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Injected) != 1 || sidecars(got) != 1 || !strings.Contains(got, "http://127.0.0.1:8000") ||
				strings.Count(got, "mountPath: /dev/shm") != 2 || strings.Count(got, "semproxy.io/release: demo") != 1 {
				t.Errorf("got %v and\n%s\nwant one sidecar, a /dev/shm for both, and the release's label", report, got)
			}
			again, report, err := filter(t, got, Options{})
			if err != nil || again != got || len(report.Injected) != 0 || len(report.Had) != 1 {
				t.Errorf("the second time: got %v, %v and\n%s\nwant nothing changed", report, err, again)
			}
		})
	}
}

func TestBothTemplatesOfALeaderWorkerSetGetIt(t *testing.T) {
	part := ":\n      metadata: { labels: { semproxy.io/inject: 'true' } }\n      spec: { containers: [ { name: engine } ] }\n"
	got, _, err := filter(t, "kind: LeaderWorkerSet\nmetadata: { name: x }\nspec:\n  leaderWorkerTemplate:\n    leaderTemplate"+part+"    workerTemplate"+part, Options{})
	if err != nil || sidecars(got) != 2 {
		t.Errorf("got %v and\n%s\nwant two sidecars", err, got)
	}
}

func TestWhatDoesNotAskPassesByteForByte(t *testing.T) {
	manifest := "# odd   spacing\nkind:   Pod\nmetadata: {name: x}\nspec: {containers: [{name: engine}]}\n--- # a comment\n\n---\n# nothing\n---\n{}\n--- {kind: Pod}\n" +
		"---\nkind: Deployment\nspec: {}\n...\n---\ndata: |\n  text\n  --- in a block\n"
	got, report, err := filter(t, manifest, Options{})
	if err != nil || got != manifest || len(report.Injected)+len(report.Had) != 0 {
		t.Errorf("got %v, %v and\n%s\nwant it unchanged", report, err, got)
	}
}

func TestCommentsAndOrderStayInWhatIsChanged(t *testing.T) {
	got, _, err := filter(t, "# head\nkind: Deployment\nspec:\n  template:\n    metadata:"+podSpec, Options{})
	if err != nil || !strings.HasPrefix(got, "# head\nkind: Deployment\n") || !strings.Contains(got, "- name: engine # the first") {
		t.Errorf("got %v and\n%s", err, got)
	}
}

// Where the planes run apart, both containers come before the pod's own, the sidecar first.
func TestThePagePlanesContainerComesAfterTheSidecar(t *testing.T) {
	in, err := Read(strings.NewReader(injection + "pagePlane:\n  name: semproxy-pages\n  volumeMounts: [{ name: \"${SHM_VOLUME}\", mountPath: /dev/shm }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	pod := "kind: Pod\nmetadata: { name: x, labels: { semproxy.io/inject: \"true\" } }\nspec:\n  initContainers:\n    - name: own\n  containers:\n    - name: vllm\n"
	if _, err := in.Filter(strings.NewReader(pod), &out, Options{}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	first, second, own := strings.Index(text, "name: semproxy\n"), strings.Index(text, "name: semproxy-pages\n"), strings.Index(text, "name: own\n")
	if first < 0 || second < first || own < second || strings.Contains(text, "${") {
		t.Errorf("got\n%s", text)
	}
}

func TestAllGivesItToPodsWithoutTheLabel(t *testing.T) {
	got, report, err := filter(t, "kind: Pod\nmetadata: { name: x }\nspec: { containers: [ { name: engine } ] }\n", Options{All: true})
	if err != nil || len(report.Injected) != 1 || !strings.Contains(got, `semproxy.io/inject: "true"`) {
		t.Errorf("got %v, %v and\n%s", report, err, got)
	}
}

func TestWhatCannotBeInjectedIsAnErrorWithItsPlace(t *testing.T) {
	for _, c := range []struct{ name, manifest, want string }{
		{"no containers", "kind: Pod\nmetadata: { name: x, labels: { semproxy.io/inject: 'true' } }\nspec: {}\n", "manifest: line 1: Pod/x: the pod has no containers"},
		{"the second document", "---\nkind: ConfigMap\n---\n\nkind: Pod\nmetadata: { name: x, labels: { semproxy.io/inject: 'true' }, annotations: { semproxy.io/engine-container: y } }\n" +
			"spec: { containers: [ { name: engine } ] }\n", `manifest: line 5: Pod/x: the engine's container is to be "y", but the pod has only ["engine"]`},
		{"no YAML", "kind: [", "manifest: document at line 1: yaml: "},
		{"documents without a line between", "kind: Pod\n...\nkind: Pod\n", "want --- between two documents"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, err := filter(t, c.manifest, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || got != "" {
				t.Errorf("got %v and %q, want %q and nothing written", err, got, c.want)
			}
		})
	}
}

func TestReadFindsTheInjection(t *testing.T) {
	indented := "  injection.yaml: |\n    " + strings.ReplaceAll(injection, "\n", "\n    ")
	for _, c := range []struct{ name, text, want string }{
		{"the document", injection, ""},
		{"the ConfigMap", "kind: ConfigMap\ndata:\n" + indented, ""},
		{"among others", "kind: Service\ndata: 3\n---\nkind: ConfigMap\ndata:\n" + indented, ""},
		{"nowhere", "kind: Service\n", "no ConfigMap with injection.yaml in it"},
		{"twice", injection + "---" + injection, "2 of them"},
		{"an unknown key", injection + "more: 1\n", "field more not found"},
		{"another version", strings.Replace(injection, "/v1", "/v2", 1), "must be semproxy.io/v1"},
		{"another container", strings.Replace(injection, "name: semproxy\n", "name: other\n", 1), `of the name "semproxy"`},
		{"no release", strings.Replace(injection, "release: demo", "release: ''", 1), "release, optIn and engine.port must be set"},
		{"no YAML", "{", "injection: document 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(strings.NewReader(c.text))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzFilter: whatever comes in, a second pass changes nothing and nothing panics.
func FuzzFilter(f *testing.F) {
	f.Add("kind: Pod\nmetadata: { name: x, labels: { semproxy.io/inject: 'true' } }\nspec: { containers: [ { name: engine } ] }\n")
	f.Add("kind: Deployment\nspec: &a\n  template: *a\n")
	f.Add("--- {kind: List, items: [{kind: Pod}]}\n")
	f.Fuzz(func(t *testing.T, manifest string) {
		in, err := Read(strings.NewReader(injection))
		if err != nil {
			t.Fatal(err)
		}
		var once, twice strings.Builder
		if _, err := in.Filter(strings.NewReader(manifest), &once, Options{All: true}); err != nil {
			return
		}
		if _, err := in.Filter(strings.NewReader(once.String()), &twice, Options{All: true}); err != nil || twice.String() != once.String() {
			t.Errorf("the second pass: %v\n%s\nafter\n%s", err, twice.String(), once.String())
		}
	})
}
