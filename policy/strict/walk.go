package strict

import (
	"encoding"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

type decoder struct {
	doc      *Doc
	problems []*Error
	nodes    int
	stopped  bool // a limit was met; nothing more is looked at
}

// at is the place that is being decoded.
type at struct {
	path   string
	place  place
	depth  int
	secret bool
}

func (d *decoder) report(p at, problem string) {
	if d.stopped {
		return
	}
	d.problems = append(d.problems, &Error{File: d.doc.file, Line: p.place.line, Column: p.place.column, Path: p.path, Problem: problem})
	if len(d.problems) >= MaxProblems {
		d.stopped = true
		d.problems = append(d.problems, &Error{File: d.doc.file, Line: p.place.line, Column: p.place.column, Problem: "too many problems, the rest of the file was not checked"})
	}
}

// want reports a value of the wrong kind.
func (d *decoder) want(p at, problem string, n *yaml.Node) {
	d.doc.failed = append(d.doc.failed, p.path)
	if isNull(n) {
		d.report(p, "has no value; give it one or remove the key")
		return
	}
	d.report(p, problem+", got "+shown(n, p.secret))
}

func (d *decoder) stop(p at, problem string) {
	d.report(p, problem)
	d.stopped = true
}

var (
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType = reflect.TypeFor[time.Duration]()
)

// value decodes n into v, which is settable.
func (d *decoder) value(p at, n *yaml.Node, v reflect.Value) {
	if p.place.line == 0 {
		p.place = place{n.Line, n.Column}
	}
	for n.Kind == yaml.AliasNode && !d.stopped {
		p.depth++
		n = n.Alias
		if p.depth > MaxDepth {
			break
		}
	}
	d.nodes++
	if d.nodes > MaxNodes {
		d.stop(p, "document must have at most "+strconv.Itoa(MaxNodes)+" values once its aliases are followed")
	}
	p.depth++
	if p.depth > MaxDepth {
		d.stop(p, "must be nested at most "+strconv.Itoa(MaxDepth)+" deep; does an alias contain itself?")
	}
	if d.stopped {
		return
	}
	if reflect.PointerTo(v.Type()).Implements(textType) || v.Type() == durationType {
		d.text(p, n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		p.depth--
		d.value(p, n, v.Elem())
	case reflect.Struct:
		d.structure(p, n, v)
	case reflect.Map:
		d.mapping(p, n, v)
	case reflect.Slice:
		d.list(p, n, v)
	default:
		d.scalar(p, n, v)
	}
}

// entries calls each for every key of a mapping that may be used: scalar, not null, not a merge key, not seen before.
func (d *decoder) entries(p at, n *yaml.Node, each func(key string, p at, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.want(p, "must be a mapping", n)
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content) && !d.stopped; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		here := at{path: p.path, place: place{key.Line, key.Column}, depth: p.depth, secret: p.secret}
		if key.Kind != yaml.ScalarNode || isNull(key) {
			d.report(here, "key must be a name, got "+shown(key, false))
			continue
		}
		here.path = Key(p.path, key.Value)
		if key.ShortTag() == "!!merge" {
			d.report(here, "merge keys are not supported; write the keys out")
			continue
		}
		if line, dup := seen[key.Value]; dup {
			d.report(here, "key is set twice, first on line "+strconv.Itoa(line))
			continue
		}
		seen[key.Value] = key.Line
		d.doc.places[here.path] = here.place
		each(key.Value, here, value)
	}
}

func (d *decoder) structure(p at, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v.Type())
	d.entries(p, n, func(key string, here at, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if i < 0 {
			problem := "unknown key"
			if hint := Suggest(key, names(fields)); hint != "" {
				problem += ", " + hint
			}
			d.report(here, problem)
			return
		}
		here.secret = here.secret || fields[i].secret
		d.value(here, value, v.Field(fields[i].index))
	})
}

func (d *decoder) mapping(p at, n *yaml.Node, v reflect.Value) {
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		d.stop(p, "cannot be read: the program declares a map whose keys are not text")
		return
	}
	if n.Kind == yaml.MappingNode && v.IsNil() {
		v.Set(reflect.MakeMap(t))
	}
	d.entries(p, n, func(key string, here at, value *yaml.Node) {
		elem := reflect.New(t.Elem()).Elem()
		d.value(here, value, elem)
		v.SetMapIndex(reflect.ValueOf(key).Convert(t.Key()), elem)
	})
}

func (d *decoder) list(p at, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.want(p, "must be a list", n)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		if d.stopped {
			return
		}
		here := at{path: Index(p.path, i), place: place{item.Line, item.Column}, depth: p.depth, secret: p.secret}
		d.doc.places[here.path] = here.place
		d.value(here, item, v.Index(i))
	}
}

type field struct {
	name   string
	index  int
	secret bool
}

func fieldsOf(t reflect.Type) []field {
	var fields []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name[:1]) + f.Name[1:]
		}
		fields = append(fields, field{name: name, index: i, secret: f.Tag.Get("strict") == "secret"})
	}
	return fields
}

func names(fields []field) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.name
	}
	return all
}
