package config

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/policy/schema"
)

var chartSchema = filepath.Join("..", "..", "helm", "semproxy", "values.schema.json")

// valuesSchema is the chart's schema: what people write stays as it is, and $defs are made of the Go types.
type valuesSchema struct {
	Schema               string                     `json:"$schema"`
	Title                string                     `json:"title"`
	Type                 string                     `json:"type"`
	AdditionalProperties bool                       `json:"additionalProperties"`
	Required             []string                   `json:"required"` // Helm takes a value that is left empty (null) out: it is then missing
	Properties           json.RawMessage            `json:"properties"`
	Defs                 map[string]json.RawMessage `json:"$defs"`
}

// The chart's schema knows every key of the configuration and the policy, with the values that Go takes: -update writes them there.
func TestTheChartsSchemaIsThatOfTheGoTypes(t *testing.T) {
	text, err := os.ReadFile(chartSchema)
	if err != nil {
		t.Fatal(err)
	}
	var s valuesSchema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	s.Defs = map[string]json.RawMessage{}
	addPolicy(t, s.Defs)
	s.Defs["config"] = asJSON(t, tree())
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(chartSchema, want.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want.String() != string(text) {
		t.Errorf("%s differs from the Go types; `go test ./sidecar/config -update` writes it", chartSchema)
	}
}

// The values of the chart that go into one key of the configuration have that key's choices.
func TestTheChartsEnumsAreGos(t *testing.T) {
	text, err := os.ReadFile(chartSchema)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for path, key := range map[string]string{"properties.engine.properties.kind.enum": "proxy.engine.kind"} {
		at := any(s)
		for _, k := range strings.Split(path, ".") {
			at = at.(map[string]any)[k]
		}
		var got []string
		for _, v := range at.([]any) {
			got = append(got, v.(string))
		}
		if !slices.Equal(got, choices[key]) {
			t.Errorf("%s: got %q, want %s's %q", path, got, key, choices[key])
		}
	}
}

// Each key of choices is a key, and validate takes all of its values and no other.
func TestChoicesAreWhatIsTaken(t *testing.T) {
	for _, path := range slices.Sorted(maps.Keys(choices)) {
		i := slices.IndexFunc(Keys(), func(k Key) bool { return k.Path == path })
		if i < 0 {
			t.Fatalf("%s is no key", path)
		}
		for _, value := range append([]string{"nonsense"}, choices[path]...) {
			_, err := Load(Sources{Env: []string{
				Keys()[i].Env + "=" + value, "SEMPROXY_PROXY_LISTEN=127.0.0.1:8080", "SEMPROXY_PROXY_ENGINE_URL=http://127.0.0.1:1",
				"SEMPROXY_PROXY_IDENTITY_ANONYMOUS_TENANT=a", "SEMPROXY_STORE_REDIS_ADDRS=127.0.0.1:1", "SEMPROXY_PLANES_SOCKET=/run/planes.sock",
			}})
			if (err == nil) != (value != "nonsense") {
				t.Errorf("%s=%s: got %v", path, value, err)
			}
		}
	}
}

// tree is the JSON Schema of the configuration's file.
func tree() map[string]any {
	root := branch()
	for _, k := range Keys() {
		parts := strings.Split(k.Path, ".")
		n := root
		for _, p := range parts[:len(parts)-1] {
			properties := n["properties"].(map[string]any)
			if properties[p] == nil {
				properties[p] = branch()
			}
			n = properties[p].(map[string]any)
		}
		leaf := leafOf(k)
		leaf["description"] = k.Help
		n["properties"].(map[string]any)[parts[len(parts)-1]] = leaf
	}
	return root
}

func branch() map[string]any {
	return map[string]any{"type": "object", "additionalProperties": false, "properties": map[string]any{}}
}

func leafOf(k Key) map[string]any {
	text := map[string]any{"type": "string"}
	switch k.Kind {
	case "size":
		return map[string]any{"type": []string{"string", "integer"}}
	case "number":
		c := Default()
		if k.field(&c).Kind() == reflect.Float64 {
			return map[string]any{"type": "number"}
		}
		return map[string]any{"type": "integer"}
	case "true|false":
		return map[string]any{"type": "boolean"}
	case "texts":
		return map[string]any{"type": "array", "items": text}
	case "list":
		item := branch()
		item["properties"] = map[string]any{"match": text, "tokenizerFile": text, "layout": text}
		item["required"] = []string{"match"}
		return map[string]any{"type": "array", "items": item}
	}
	if allowed := choices[k.Path]; allowed != nil {
		text["enum"] = allowed
	}
	return text
}

// addPolicy adds the policy's schema and its definitions; the chart writes apiVersion itself.
func addPolicy(t *testing.T, defs map[string]json.RawMessage) {
	t.Helper()
	text, err := schema.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for name, def := range s["$defs"].(map[string]any) {
		defs[name] = asJSON(t, def)
	}
	for _, k := range []string{"$schema", "$id", "$defs", "title", "required"} {
		delete(s, k)
	}
	defs["policy"] = asJSON(t, s)
}

func asJSON(t *testing.T, v any) json.RawMessage {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b.Bytes())
}
