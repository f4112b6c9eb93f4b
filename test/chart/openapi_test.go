package chart

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// openAPI holds a Kubernetes version's own schemas (openapi/gen makes the files).
type openAPI struct {
	version  string            // v1.37.2
	byKind   map[string]string // "apps/v1, Kind=Deployment" -> name of the schema
	compiler *jsonschema.Compiler
}

func load(t testing.TB, file string) openAPI {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Kubernetes string
		Schemas    map[string]any
	}
	if err := json.NewDecoder(z).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	api := openAPI{version: doc.Kubernetes, byKind: map[string]string{}, compiler: jsonschema.NewCompiler()}
	for name, s := range doc.Schemas {
		schema := s.(object)
		gvks, _ := schema["x-kubernetes-group-version-kind"].([]any)
		for _, gvk := range gvks {
			g, v, k := at(gvk, "group"), at(gvk, "version"), at(gvk, "kind")
			api.byKind[strings.TrimPrefix(fmt.Sprintf("%s/%s", g, v), "/")+", Kind="+k.(string)] = name
		}
		strict(schema)
	}
	if err := api.compiler.AddResource("openapi.json", object{"components": object{"schemas": doc.Schemas}}); err != nil {
		t.Fatal(err)
	}
	return api
}

// strict makes of OpenAPI what the API server makes of it with fieldValidation=Strict: no field but those that are known.
func strict(v any) {
	switch v := v.(type) {
	case object:
		if v["properties"] != nil && v["additionalProperties"] == nil {
			v["additionalProperties"] = false
		}
		for _, e := range v {
			strict(e)
		}
	case []any:
		for _, e := range v {
			strict(e)
		}
	}
}

// check validates a manifest; kinds of other API groups than Kubernetes' own are said to be unknown.
func (api openAPI) check(o object) error {
	kind := fmt.Sprintf("%v, Kind=%v", o["apiVersion"], o["kind"])
	name, ok := api.byKind[kind]
	if !ok {
		return fmt.Errorf("Kubernetes %s has no %s", api.version, kind)
	}
	schema, err := api.compiler.Compile("openapi.json#/components/schemas/" + name)
	if err != nil {
		return err
	}
	return schema.Validate(o)
}

func TestTheValidatorFindsMistakes(t *testing.T) {
	api := load(t, "openapi/v1.37.json.gz")
	good := `{ apiVersion: apps/v1, kind: Deployment, metadata: { name: x }, spec: { selector: {}, template: { spec: { containers: [ { name: x, ports: [ { containerPort: 1 } ] } ] } } } }`
	for _, c := range []struct{ name, from, to, want string }{
		{"none", "", "", ""},
		{"an unknown field", "ports:", "port:", "additional properties 'port' not allowed"},
		{"a wrong type", "containerPort: 1", "containerPort: one", "got string, want integer"},
		{"a missing field", "selector: {}, ", "", "missing property 'selector'"},
		{"an unknown version", "apps/v1", "apps/v1beta2", "has no apps/v1beta2, Kind=Deployment"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := api.check(objects(t, strings.Replace(good, c.from, c.to, 1))[0])
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// crds are kinds of operators; TestMonitorsAreThoseOfTheOperator holds them against the operator's types.
var crds = []string{"PodMonitor", "PrometheusRule"}

func TestEveryVersionOfKubernetesTakesWhatIsRendered(t *testing.T) {
	files, err := filepath.Glob("openapi/v*.json.gz")
	if err != nil || len(files) != 9 {
		t.Fatalf("got %v, %v, want the schemas of 1.29 to 1.37", files, err)
	}
	full := values["everything"] + `
podDisruptionBudget: { enabled: true }
podMonitor: { enabled: true }
prometheusRule: { enabled: true }
dashboard: { enabled: true }
networkPolicy: { otherFrom: [ { podSelector: { matchLabels: { a: b } } } ] }
image: { pullSecrets: [ { name: pull } ] }
`
	engine := "engine: { deployment: { image: \"vllm:1\", replicas: 2, nodeSelector: { a: b }, env: [ { name: A, value: b } ], startupProbe: { httpGet: { port: 8000 } } } }\n"
	for _, file := range files {
		api := load(t, file)
		minor := strings.TrimSuffix(filepath.Base(file), ".json.gz")[1:]
		major := strings.Split(minor, ".")[1]
		for name, args := range map[string][]string{
			"template":      {"--set=injection.mode=template", valuesFile(t, full)},
			"engine":        {"--set=injection.mode=engine", valuesFile(t, full), valuesFile(t, engine)},
			"auto":          {valuesFile(t, full)},
			"policy":        {valuesFile(t, full), "--set=injection.mode=admissionPolicy,injection.namespaces={a,b}"},
			"policy, beta":  {valuesFile(t, full), "--set=injection.mode=admissionPolicy,injection.beta=true"},
			"dra":           {"--set=injection.mode=engine,gpu.access=dra,gpu.dra.deviceClassName=gpu.nvidia.com", valuesFile(t, engine)},
			"dra, template": {"--set=injection.mode=template,gpu.access=dra"},
		} {
			t.Run(minor+"/"+name, func(t *testing.T) {
				text, err := helmTemplate(t, chartDir, minor+".0", args...)
				refusal := ""
				switch {
				case name == "policy" && major < "36":
					refusal = "injection.mode admissionPolicy needs Kubernetes 1.36 or newer"
				case name == "policy, beta" && major < "34":
					refusal = "Set injection.mode=template"
				case name == "dra" && major < "34":
					refusal = "gpu.dra.deviceClassName needs Kubernetes 1.34 or newer"
				}
				if refusal != "" {
					if err == nil || !strings.Contains(err.Error(), refusal) {
						t.Errorf("got %v, want %q", err, refusal)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				all := objects(t, text)
				if len(all) < 4 {
					t.Fatalf("got %d manifests", len(all))
				}
				for _, o := range all {
					if slices.Contains(crds, o["kind"].(string)) {
						continue
					}
					if err := api.check(o); err != nil {
						t.Errorf("%v/%v: %v", o["kind"], at(o, "metadata", "name"), err)
					}
				}
			})
		}
	}
}

func TestAnOlderKubernetesIsRefused(t *testing.T) {
	if _, err := helmTemplate(t, chartDir, "1.28.0"); err == nil || !strings.Contains(err.Error(), "kubeVersion: >=1.29.0-0") {
		t.Errorf("got %v, want that kubeVersion does not fit", err)
	}
}

// What is injected into a pod is taken by the versions that inject it, and the whole pod by those that only read it.
func TestInjectedPodsAreValid(t *testing.T) {
	semproxy := binary(t, "semproxy-static")
	rendered := writeFile(t, "injection.yaml", render(t, "--set=injection.mode=template", valuesFile(t, values["everything"])))
	files, _ := filepath.Glob("openapi/v*.json.gz")
	for _, file := range files {
		api := load(t, file)
		for name, manifest := range pods {
			out, err := output(t, manifest, semproxy, "inject", "--injection", rendered)
			if err != nil {
				t.Fatal(err)
			}
			if err := api.check(objects(t, out)[0]); err != nil {
				t.Errorf("%s: %s: %v", api.version, name, err)
			}
		}
	}
}
