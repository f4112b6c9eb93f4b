package chart

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const (
	chartDir = "../../helm/semproxy"
	newest   = "1.37.0"
)

// object is a manifest.
type object = map[string]any

// binary is the program of that name that .ci/chart puts into ./bin.
func binary(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../bin/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run .ci/chart, which puts it there", err)
	}
	return path
}

// helmTemplate renders a chart and returns the text.
func helmTemplate(t testing.TB, chart, version string, args ...string) (string, error) {
	t.Helper()
	return output(t, "", binary(t, "helm"), append([]string{"template", "demo", chart, "--namespace", "llm", "--kube-version", version}, args...)...)
}

// output runs a program; the error has what it wrote on standard error.
func output(t testing.TB, stdin, name string, args ...string) (string, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewBufferString(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), errors.Join(err, errors.New(errOut.String()))
	}
	return out.String(), nil
}

// render renders the chart for the newest Kubernetes and wants that to end well.
func render(t testing.TB, args ...string) string {
	t.Helper()
	text, err := helmTemplate(t, chartDir, newest, args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// objects are the manifests of a stream.
func objects(t testing.TB, text string) []object {
	t.Helper()
	var all []object
	dec := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := dec.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := yaml.UnmarshalStrict(doc, &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(o) > 0 {
			all = append(all, o)
		}
	}
}

// find is the manifest of that kind and name.
func find(t testing.TB, all []object, kind, name string) object {
	t.Helper()
	for _, o := range all {
		if o["kind"] == kind && at(o, "metadata", "name") == name {
			return o
		}
	}
	t.Fatalf("no %s %s", kind, name)
	return nil
}

// at is the value below keys, nil where there is none.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(object)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// valuesFile writes values and returns the flag.
func valuesFile(t testing.TB, text string) string {
	t.Helper()
	return "--values=" + writeFile(t, "values.yaml", text)
}

// writeFile writes into a folder that goes with the test.
func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// decode reads YAML.
func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}
