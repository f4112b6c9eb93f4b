// Command gen writes the schemas of the kinds that the chart makes, as the OpenAPI of Kubernetes 1.29 to 1.37 has them: one file per
// minor version, without descriptions. It takes them from the module k8s.io/kubernetes of each version, through the module proxy
// (about 50 MB each, removed again).
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// versions are the newest of each minor version when the files were made.
var versions = []string{"v1.29.6", "v1.30.14", "v1.31.14", "v1.32.13", "v1.33.13", "v1.34.4", "v1.35.4", "v1.36.3", "v1.37.2"}

// kinds are looked for in the files of their groups; a version that has one not yet lacks it.
var kinds = map[string][]string{
	"api__v1":                     {"ConfigMap", "Service", "Pod", "Secret"},
	"apis__apps__v1":              {"Deployment", "StatefulSet", "DaemonSet"},
	"apis__batch__v1":             {"Job"},
	"apis__networking.k8s.io__v1": {"NetworkPolicy"},
	"apis__policy__v1":            {"PodDisruptionBudget"},
	"apis__admissionregistration.k8s.io__v1": {
		"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"},
	"apis__admissionregistration.k8s.io__v1beta1": {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"},
	"apis__resource.k8s.io__v1":                   {"ResourceClaimTemplate"},
}

func main() {
	for _, v := range versions {
		if err := write(v); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", v, err)
			os.Exit(1)
		}
	}
}

func write(version string) error {
	name := version[:strings.LastIndex(version, ".")] + ".json.gz"
	if _, err := os.Stat(name); err == nil && len(os.Args) == 1 {
		return nil // -f makes it again
	}
	dir, remove, err := module(version)
	if err != nil {
		return err
	}
	defer remove()
	schemas := map[string]any{}
	for file, wanted := range kinds {
		if err := collect(schemas, filepath.Join(dir, "api", "openapi-spec", "v3", file+"_openapi.json"), wanted); err != nil {
			return err
		}
	}
	text, err := json.Marshal(map[string]any{"kubernetes": version, "schemas": schemas})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// module downloads k8s.io/kubernetes into a cache of its own.
func module(version string) (dir string, remove func(), err error) {
	cache, err := os.MkdirTemp("", "openapi")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(cache) }
	cmd := exec.Command("go", "mod", "download", "-modcacherw", "-json", "k8s.io/kubernetes@"+version)
	cmd.Env = append(os.Environ(), "GOMODCACHE="+cache)
	cmd.Dir, cmd.Stderr = cache, os.Stderr
	out, err := cmd.Output()
	var answer struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("go mod download: %w: %s", err, out)
	}
	return answer.Dir, remove, nil
}

// collect copies the schemas of the kinds in a file and all that they refer to.
func collect(into map[string]any, file string, wanted []string) error {
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	var doc struct {
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for name, schema := range doc.Components.Schemas {
		if _, root := schema.(map[string]any)["x-kubernetes-group-version-kind"]; !root {
			continue
		}
		for _, k := range wanted {
			if strings.HasSuffix(name, "."+k) {
				reach(into, doc.Components.Schemas, name)
			}
		}
	}
	return nil
}

func reach(into, from map[string]any, name string) {
	if _, done := into[name]; done {
		return
	}
	into[name] = nil // breaks cycles
	into[name] = trim(from[name], func(ref string) { reach(into, from, ref) })
}

// trim copies a schema without its descriptions and tells what it refers to.
func trim(v any, ref func(string)) any {
	switch v := v.(type) {
	case map[string]any:
		c := map[string]any{}
		for k, e := range v {
			if _, text := e.(string); k == "description" && text || k == "default" {
				continue
			}
			if s, ok := e.(string); ok && k == "$ref" {
				ref(strings.TrimPrefix(s, "#/components/schemas/"))
			}
			c[k] = trim(e, ref)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = trim(e, ref)
		}
		return c
	}
	return v
}
