// Package schema makes the JSON Schema (draft 2020-12) of policy files from the Go types, so that editors complete and check
// them while a person writes. The schema knows shapes, words and ranges; what needs more than one place of a file (a profile
// that is named and does not exist, min larger than max) only policy.Compile finds.
//
// The committed copy is configs/policy.schema.json; a test holds it to the types.
package schema

//go:generate go run ./generate -o ../../configs/policy.schema.json

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/invopop/jsonschema"

	"github.com/semproxy/semproxy/policy"
)

// ID identifies the schema. Nothing is fetched from there.
const ID = "https://semproxy.io/schemas/policy.v1.json"

// JSON returns the schema as indented JSON with a final newline. It is the same for every call.
func JSON() ([]byte, error) {
	s, err := build()
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write policy schema: %w", err)
	}
	return append(data, '\n'), nil
}

func build() (*jsonschema.Schema, error) {
	reflector := &jsonschema.Reflector{
		FieldNameTag: "yaml", RequiredFromJSONSchemaTags: true, ExpandedStruct: true, Mapper: scalar,
	}
	s := reflector.Reflect(&policy.File{})
	s.ID, s.Title, s.Description = ID, "semproxy policy", "Which profile compresses a tenant's KV-cache pages, and within which limits."
	for section, pattern := range map[string]string{"profiles": policy.ProfilePattern, "tenants": policy.TenantPattern} {
		property, ok := s.Properties.Get(section)
		if !ok {
			return nil, fmt.Errorf("policy schema: no section %s", section)
		}
		property.PropertyNames = &jsonschema.Schema{Pattern: pattern}
	}
	profile, ok := s.Definitions["ProfileSpec"]
	if !ok {
		return nil, errors.New("policy schema: no definition of a profile")
	}
	profile.AllOf = combinations()
	profiles, _ := s.Properties.Get("profiles")
	profiles.Properties = with(policy.ProfileExact, &jsonschema.Schema{
		AllOf: []*jsonschema.Schema{{Ref: "#/$defs/ProfileSpec"}, withoutMerging()},
	}).Properties
	return s, nil
}

// combinations are the keys of a profile that exclude each other.
func combinations() []*jsonschema.Schema {
	all := []*jsonschema.Schema{
		{If: &jsonschema.Schema{Required: []string{"threshold"}}, Then: without("ratio", "budget", "exact", "regular")},
		{If: &jsonschema.Schema{Required: []string{"regular"}}, Then: &jsonschema.Schema{AnyOf: []*jsonschema.Schema{
			required("budget", &jsonschema.Schema{Const: string(policy.BudgetEqual)}),
			{AllOf: []*jsonschema.Schema{required("method", &jsonschema.Schema{Const: string(policy.MethodPaper)}), without("budget")}},
		}}},
		{If: required("budget", &jsonschema.Schema{Const: string(policy.BudgetEqual)}), Then: without("headWeights")},
		{If: isMethod(policy.MethodWindow), Then: with("protect", &jsonschema.Schema{AllOf: []*jsonschema.Schema{
			with("sinks", &jsonschema.Schema{Minimum: "1"}), without("recent"),
		}})},
	}
	for _, method := range policy.Methods() {
		if keys := method.Ignores(); len(keys) > 0 {
			all = append(all, &jsonschema.Schema{If: isMethod(method), Then: without(keys...)})
		}
	}
	return all
}

// isMethod holds for profiles of a method.
func isMethod(m policy.Method) *jsonschema.Schema {
	return required("method", &jsonschema.Schema{Const: string(m)})
}

// without holds for objects that have none of the keys.
func without(keys ...string) *jsonschema.Schema {
	var some []*jsonschema.Schema
	for _, key := range keys {
		some = append(some, &jsonschema.Schema{Required: []string{key}})
	}
	return &jsonschema.Schema{Not: &jsonschema.Schema{AnyOf: some}}
}

// required holds for objects that have a key that satisfies s.
func required(key string, s *jsonschema.Schema) *jsonschema.Schema {
	out := with(key, s)
	out.Required = []string{key}
	return out
}

func withoutMerging() *jsonschema.Schema {
	return with("method", &jsonschema.Schema{Const: string(policy.MethodNone)})
}

// scalar maps the types that read themselves from text.
func scalar(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[policy.ByteSize]():
		return &jsonschema.Schema{
			OneOf: []*jsonschema.Schema{
				{Type: "string", Pattern: policy.ByteSizePattern},
				{Type: "integer", Minimum: "1"},
			},
			Examples: []any{"256MiB", "20GiB"},
		}
	case reflect.TypeFor[policy.Duration]():
		return &jsonschema.Schema{Type: "string", MinLength: new(uint64(1)), Pattern: policy.DurationPattern, Examples: []any{"90s", "24h", "7d"}}
	case reflect.TypeFor[[][]float64](): // head weights
		return &jsonschema.Schema{Type: "array", MinItems: new(uint64(1)), MaxItems: new(uint64(512)), Items: &jsonschema.Schema{
			Type: "array", MinItems: new(uint64(1)), MaxItems: new(uint64(1024)),
			Items: &jsonschema.Schema{Type: "number", Minimum: "0.015625", Maximum: "64"},
		}}
	case reflect.TypeFor[map[string]string](): // patterns of headers
		return &jsonschema.Schema{
			Type: "object", MaxProperties: new(uint64(8)), PropertyNames: &jsonschema.Schema{Pattern: "^([Xx]-[A-Za-z0-9-]{1,62}|[Uu]ser-[Aa]gent)$"},
			AdditionalProperties: &jsonschema.Schema{Type: "string", MinLength: new(uint64(1)), MaxLength: new(uint64(256))},
		}
	case reflect.TypeFor[policy.Role]():
		return words(policy.Roles())
	case reflect.TypeFor[policy.Record]():
		return words(policy.Records())
	case reflect.TypeFor[policy.Method]():
		return words(policy.Methods())
	case reflect.TypeFor[policy.Budget]():
		return words(policy.Budgets())
	case reflect.TypeFor[policy.Clusters]():
		return words(policy.ClusterKinds())
	case reflect.TypeFor[policy.OnViolation]():
		return words(policy.Violations())
	}
	return nil
}

func words[T ~string](all []T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, w := range all {
		s.Enum = append(s.Enum, string(w))
	}
	return s
}

// with is a schema that holds for objects whose key, when it is there, satisfies s.
func with(key string, s *jsonschema.Schema) *jsonschema.Schema {
	p := jsonschema.NewProperties()
	p.Set(key, s)
	return &jsonschema.Schema{Properties: p}
}
