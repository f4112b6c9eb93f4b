package config

import (
	"reflect"
	"strings"
	"unicode"

	"github.com/semproxy/semproxy/policy/strict"
)

// Key is one value that can be set.
type Key struct {
	Path    string // in YAML, such as nats.embedded.maxPayload
	Env     string // SEMPROXY_NATS_EMBEDDED_MAX_PAYLOAD
	Flag    string // nats-embedded-max-payload, without dashes
	Kind    string // text, size, duration, number, true|false, texts or list
	Default string // as written in YAML
	Help    string
	Secret  bool // redacted when shown

	index []int // of the field, from Config
}

// Keys lists every key in the order of the struct. Lists are one key.
func Keys() []Key {
	defaults := Default()
	return keysOf(reflect.ValueOf(defaults), "", nil)
}

func keysOf(v reflect.Value, parent string, index []int) []Key {
	var keys []Key
	for i := range v.NumField() {
		f := v.Type().Field(i)
		path := strict.Key(parent, f.Tag.Get("yaml"))
		at := append(append([]int(nil), index...), i)
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(v.Field(i), path, at)...)
			continue
		}
		keys = append(keys, Key{
			Path:    path,
			Env:     envOf(path),
			Flag:    flagOf(path),
			Kind:    kindOf(f.Type),
			Default: text(v.Field(i)),
			Help:    f.Tag.Get("help"),
			Secret:  f.Tag.Get("strict") == "secret",
			index:   at,
		})
	}
	return keys
}

// envOf is the variable, and flagOf the flag, of the key at a path.
func envOf(path string) string  { return prefix + strings.ToUpper(strings.Join(words(path), "_")) }
func flagOf(path string) string { return strings.Join(words(path), "-") }

// words splits a path at its dots and humps: nats.maxPayload is nats, max, payload.
func words(path string) []string {
	var b strings.Builder
	for _, r := range path {
		switch {
		case r == '.':
			b.WriteByte(' ')
		case unicode.IsUpper(r):
			b.WriteByte(' ')
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteRune(r)
		}
	}
	return strings.Fields(b.String())
}

// field is the key's value inside c.
func (k Key) field(c *Config) reflect.Value { return reflect.ValueOf(c).Elem().FieldByIndex(k.index) }
