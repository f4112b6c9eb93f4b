package config

import (
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/semproxy/semproxy/policy/strict"
)

// Print writes the effective configuration to w as YAML that Load reads again. A comment behind each value says where it
// came from: default, file:line, a variable or a flag. User and password of a URL are replaced by "redacted".
func (l *Loaded) Print(w io.Writer) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	root, err := l.node(reflect.ValueOf(l.Config), "", false)
	if err == nil {
		err = enc.Encode(root)
	}
	if err == nil {
		err = enc.Close()
	}
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}

// node builds the YAML of v. Below a key, such as inside a list, nothing has an origin of its own.
func (l *Loaded) node(v reflect.Value, path string, below bool) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name := tag.Get("yaml")
		here := strict.Key(path, name)
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: name}
		value, err := l.value(v.Field(i), here, tag.Get("strict") == "secret", below)
		if err != nil {
			return nil, err
		}
		if v.Field(i).Kind() != reflect.Struct && !below {
			if len(value.Content) > 0 {
				key.LineComment = l.Origin(here)
			} else {
				value.LineComment = l.Origin(here)
			}
		}
		n.Content = append(n.Content, key, value)
	}
	return n, nil
}

func (l *Loaded) value(v reflect.Value, path string, secret, below bool) (*yaml.Node, error) {
	switch v.Kind() {
	case reflect.Struct:
		return l.node(v, path, below)
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		if v.Len() == 0 {
			list.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			item, err := l.value(v.Index(i), strict.Index(path, i), secret, true)
			if err != nil {
				return nil, err
			}
			list.Content = append(list.Content, item)
		}
		return list, nil
	}
	var n yaml.Node
	plain := v.Interface()
	if s, ok := plain.(string); ok && secret {
		plain = Redact(s)
	}
	if err := n.Encode(plain); err != nil {
		return nil, err
	}
	return &n, nil
}

// Redact replaces who logs in, which for NATS may be a token in the place of the user, in each URL of a list.
func Redact(list string) string {
	servers := splitServers(list)
	for i, server := range servers {
		u, err := url.Parse(server)
		switch {
		case err != nil:
			servers[i] = "redacted"
		case u.User != nil:
			u.User = url.User("redacted")
			servers[i] = u.String()
		}
	}
	return strings.Join(servers, ",")
}

// Value is a key of the effective configuration and where it came from.
type Value struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"` // default, file:line, a variable or a flag
}

// Values lists the effective configuration, in the order of Print, with credentials redacted as there.
func (l *Loaded) Values() ([]Value, error) {
	root, err := l.node(reflect.ValueOf(l.Config), "", false)
	if err != nil {
		return nil, fmt.Errorf("list configuration: %w", err)
	}
	var out []Value
	if err := l.values(root, "", &out); err != nil {
		return nil, fmt.Errorf("list configuration: %w", err)
	}
	return out, nil
}

func (l *Loaded) values(n *yaml.Node, path string, out *[]Value) error {
	for i := 0; i+1 < len(n.Content); i += 2 {
		here, value := strict.Key(path, n.Content[i].Value), n.Content[i+1]
		if value.Kind == yaml.MappingNode {
			if err := l.values(value, here, out); err != nil {
				return err
			}
			continue
		}
		v := Value{Key: here, Origin: l.Origin(here)}
		if err := value.Decode(&v.Value); err != nil {
			return err
		}
		*out = append(*out, v)
	}
	return nil
}
