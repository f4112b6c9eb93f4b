package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestBadValuesAreRefusedWithTheirPlace(t *testing.T) {
	for _, c := range []struct{ name, values, want string }{
		{"an unknown value", "natss: {}", "additional properties 'natss' not allowed"},
		{"an unknown value below", "nats: { urls: x }", "'/nats': additional properties 'urls' not allowed"},
		{"an unknown key of the configuration", "config: { compress: { devices: cpu } }", "'/config/compress': additional properties 'devices' not allowed"},
		{"a wrong kind in the configuration", "config: { limits: { queue: many } }", "'/config/limits/queue': got string, want integer"},
		{"a word that is none of the choices", "config: { telemetry: { logLevel: loud } }", "value must be one of 'debug', 'info', 'warn', 'error'"},
		{"a mode that is not", "injection: { mode: webhook }", "value must be one of 'auto', 'admissionPolicy', 'template', 'engine'"},
		{"an engine that is not", "engine: { kind: sglang }", "value must be one of 'vllm', 'tgi', 'openai'"},
		{"GPU access that is not", "gpu: { access: all }", "value must be one of 'none', 'dra', 'visibleDevices'"},
		{"a port as text", `proxy: { port: "8080" }`, "'/proxy/port': got string, want integer"},
		{"a port out of range", "admin: { port: 70000 }", "'/admin/port': maximum: got 70,000, want 65,535"},
		{"a policy's method that is not", "policy: { profiles: { x: { method: magic } } }", "'/policy/profiles/x/method': value must be one of"},
		{"a policy's unknown key", "policy: { tenants: { acme: { rule: [] } } }", "'/policy/tenants/acme': additional properties 'rule' not allowed"},
		{"a ratio over 1", "policy: { profiles: { x: { method: weighted, ratio: 2 } } }", "'/policy/profiles/x/ratio': maximum: got 2, want 1"},
		{"a digest that is none", "image: { digest: latest }", "'/image/digest': 'latest' does not match pattern"},
		{"a protocol that is not", "otel: { protocol: http/json }", "value must be one of 'http/protobuf', 'grpc'"},
		{"a collector that is no URL", "otel: { endpoint: \"collector:4317\" }", "'/otel/endpoint'"},
		{"a limit of the test out of range", "prove: { maxRatio: 0 }", "'/prove/maxRatio'"},
		{"a variable that is no text", "extraEnv: [ { name: A, value: 1 } ]", "'/extraEnv/0/value': got number, want string"},
		{"an engine without an image", "injection: { mode: engine }", "needs engine.deployment.image"},
		{"an engine with a claim of no class", "injection: { mode: engine }\nengine: { deployment: { image: x } }\ngpu: { access: dra }", "needs gpu.dra.deviceClassName"},
		{"the same port twice", "admin: { port: 8080 }", "proxy.port and admin.port are both 8080"},
		{"two planes without a proxy", "planes: { split: true }\nproxy: { enabled: false }", "planes.split needs proxy.enabled"},
		{"the other plane's port", "planes: { split: true, adminPort: 9090 }", "planes.adminPort and admin.port are both 9090"},
		{"the engine's port", "proxy: { port: 8000 }", "proxy.port and engine.port are both 8000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := helmTemplate(t, chartDir, newest, valuesFile(t, c.values))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A value that is left empty, as when everything below its key is commented out, renders, or the schema says which it is.
func TestValuesThatAreLeftEmpty(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	decode(t, string(text), &defaults)
	var paths []string
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		m, _ := v.(map[string]any)
		for k, below := range m {
			paths = append(paths, prefix+k)
			walk(prefix+k+".", below)
		}
	}
	walk("", defaults)
	if len(paths) < 150 {
		t.Fatalf("got %d values", len(paths))
	}
	slices.Sort(paths)
	for i, path := range paths {
		keys := strings.Split(path, ".")
		empty := ""
		for depth, k := range keys {
			empty += strings.Repeat("  ", depth) + k + ":\n"
		}
		helms := []string{"helm"}
		if i%10 == 0 {
			helms = append(helms, "helm3")
		}
		for _, helm := range helms {
			for _, mode := range []string{"auto", "engine"} {
				if mode == "engine" && keys[0] != "engine" && i%5 != 0 {
					continue
				}
				extra := valuesFile(t, "injection: { mode: "+mode+" }\nengine: { deployment: { image: x } }\n")
				_, err := output(t, "", binary(t, helm), "template", "demo", chartDir, "--namespace", "llm", "--kube-version", newest, extra, valuesFile(t, empty))
				switch last := keys[len(keys)-1]; {
				case err == nil:
				case strings.Contains(err.Error(), "don't meet") && strings.Contains(err.Error(), "'"+last+"'"): // the schema names it
				case path == "engine.deployment.image" && strings.Contains(err.Error(), "needs engine.deployment.image"):
				default:
					t.Errorf("%s with %s left empty, mode %s: got %v, want it to render or the schema's message", helm, path, mode, err)
				}
			}
		}
	}
}

func TestHelm3RendersWhatHelm4Renders(t *testing.T) {
	for name, vals := range values {
		args := []string{"template", "demo", chartDir, "--namespace", "llm", "--kube-version", newest, valuesFile(t, vals)}
		var rendered []map[string]string
		for _, helm := range []string{"helm", "helm3"} {
			text, err := output(t, "", binary(t, helm), args...)
			if err != nil {
				t.Fatalf("%s: %v", helm, err)
			}
			byName := map[string]string{}
			for _, o := range objects(t, text) {
				byName[fmt.Sprint(o["kind"], at(o, "metadata", "namespace"), at(o, "metadata", "name"))] = asJSON(t, o)
			}
			rendered = append(rendered, byName)
		}
		if len(rendered[0]) < 8 || !maps.Equal(rendered[0], rendered[1]) {
			t.Errorf("%s: got %d manifests by helm 4 that differ from the %d by helm 3", name, len(rendered[0]), len(rendered[1]))
		}
	}
}

func TestEveryValueIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| ([a-zA-Z.]+) \| \w+ \| .* \| (.*) \|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) < 100 {
		t.Fatalf("got %d values in README.md", len(rows))
	}
	for _, row := range rows {
		if strings.TrimSpace(row[2]) == "" {
			t.Errorf("%s has no description in values.yaml", row[1])
		}
	}
}

// Whoever takes an example gets a chart that renders and pods that can be made.
func TestTheExamplesRender(t *testing.T) {
	examples, err := filepath.Glob("../../helm/examples/*/semproxy.yaml")
	if err != nil || len(examples) < 5 {
		t.Fatalf("got %v, %v, want an example for each engine", examples, err)
	}
	api := load(t, "openapi/v1.37.json.gz")
	for _, example := range examples {
		dir := filepath.Dir(example)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := helmTemplate(t, chartDir, newest, "--values="+example)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects(t, text) {
				if err := api.check(o); err != nil && !strings.Contains(err.Error(), "monitoring.coreos.com") {
					t.Errorf("%v/%v: %v", o["kind"], at(o, "metadata", "name"), err)
				}
			}
			manifests, _ := filepath.Glob(filepath.Join(dir, "manifests.yaml"))
			for _, m := range manifests {
				in, err := os.ReadFile(m)
				if err != nil {
					t.Fatal(err)
				}
				out, err := output(t, string(in), binary(t, "semproxy-static"), "inject", "--injection", writeFile(t, "injection.yaml", text))
				if err != nil {
					t.Fatal(err)
				}
				if strings.Count(out, "restartPolicy: Always\n") != strings.Count(string(in), "semproxy.io/inject:") {
					t.Errorf("%s: not every pod that asks got the sidecar:\n%s", m, out)
				}
			}
		})
	}
}
