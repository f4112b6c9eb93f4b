package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of one document. They bound time and memory for any input.
const (
	MaxBytes    = 1 << 20 // size of a file; a whole ConfigMap is no larger
	MaxDepth    = 64      // nesting, aliases followed included
	MaxNodes    = 100_000 // values visited, counted again at each use of an alias
	MaxProblems = 200     // problems reported before the decoder gives up
	maxShown    = 80      // bytes of a value shown in a problem
)

// Decode reads the single YAML document in data into the struct that out points to. file names the source in problems.
//
// Fields are matched by their `yaml:"name"` tag (options after a comma are ignored, "-" hides the field); an untagged
// exported field is named by its own name with a small first letter. Embedded structs are ordinary fields: nothing is
// inlined. Values already in *out are kept for keys that the document does not name, so defaults may be set before.
// Supported are structs, maps with string keys, slices, pointers, strings, booleans, numbers, time.Duration and every type
// with UnmarshalText, whose error text becomes the problem. A field tagged `strict:"secret"` is never quoted in a problem.
//
// The returned Doc is never nil. On error it holds the places that were read, the error joins every problem found (see
// Problems), and *out is to be thrown away.
func Decode(file string, data []byte, out any) (*Doc, error) {
	doc := &Doc{file: file, places: map[string]place{}}
	target := reflect.ValueOf(out)
	if target.Kind() != reflect.Pointer || target.IsNil() || target.Elem().Kind() != reflect.Struct {
		return doc, fmt.Errorf("strict: decode into %T: want a pointer to a struct", out)
	}
	root, problems := parse(file, data)
	if len(problems) > 0 {
		return doc, Join(problems)
	}
	d := &decoder{doc: doc}
	doc.places[""] = place{root.Line, root.Column}
	d.value(at{}, root, target.Elem())
	return doc, Join(d.problems)
}

// parse returns the root value of the only document in data.
func parse(file string, data []byte) (*yaml.Node, []*Error) {
	fail := func(line int, format string, args ...any) []*Error {
		return []*Error{{File: file, Line: line, Problem: fmt.Sprintf(format, args...)}}
	}
	if len(data) > MaxBytes {
		return nil, fail(0, "file must have at most %d bytes, got %d", MaxBytes, len(data))
	}
	reader := yaml.NewDecoder(bytes.NewReader(data))
	var first, second yaml.Node
	if err := reader.Decode(&first); errors.Is(err, io.EOF) {
		return nil, fail(1, "file is empty")
	} else if err != nil {
		return nil, syntax(file, data, err)
	}
	if len(first.Content) == 0 || isNull(first.Content[0]) {
		return nil, fail(1, "file is empty")
	}
	if err := reader.Decode(&second); err == nil {
		return nil, fail(second.Line, "file must hold one document, got a second one")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(file, data, err)
	}
	return first.Content[0], nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax turns the parser's error into problems. Tabs in the indentation, the usual cause, are all named.
func syntax(file string, data []byte, err error) []*Error {
	var problems []*Error
	for i, line := range bytes.Split(data, []byte("\n")) {
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if bytes.ContainsRune(indent, '\t') && len(problems) < MaxProblems {
			problems = append(problems, &Error{File: file, Line: i + 1, Problem: "indentation must be spaces, got a tab"})
		}
	}
	if len(problems) > 0 {
		return problems
	}
	text := err.Error()
	line := 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // the group is empty or digits
		text = text[len(m[0]):]
	}
	text = strings.Join(strings.Fields(text), " ")
	return []*Error{{File: file, Line: line, Problem: "is not valid YAML: " + text}}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }
