package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Report is what a filter did.
type Report struct {
	Injected []string // objects that got the sidecar, as Kind/name
	Had      []string // objects that asked for it and have one already
	// Mislabelled are objects with the label at themselves, where nothing looks at it: it belongs to the template of their pods.
	Mislabelled []string
}

// Options of a filter.
type Options struct {
	// All gives every pod the sidecar, also those without the label; the label is added.
	All bool
}

// Filter copies a stream of manifests and gives the sidecar to the pods that ask for it. Documents that are not changed pass byte for
// byte, and so does what is not changed in the others, where it stands in block style; else order and comments stay. The first error ends it; nothing has been written then.
func (in *Injection) Filter(r io.Reader, w io.Writer, o Options) (Report, error) {
	var report Report
	text, err := io.ReadAll(r)
	if err != nil {
		return report, err
	}
	var out bytes.Buffer
	for _, d := range split(string(text)) {
		changed, err := in.document(d, &report, o)
		if err != nil {
			return Report{}, err
		}
		out.WriteString(changed)
	}
	_, err = w.Write(out.Bytes())
	return report, err
}

// part is a document of a stream, or the line between two.
type part struct {
	text string
	line int // of its first line, from 1
	mark bool
}

// split cuts a stream at its lines "---". What stands behind the dashes belongs to the document.
func split(text string) []part {
	var parts []part
	line := 1
	for l := range strings.Lines(text) {
		rest, marks := strings.CutPrefix(l, "---")
		marks = marks && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n"))
		bare := marks && strings.TrimSpace(strings.SplitN(rest, "#", 2)[0]) == ""
		if n := len(parts); marks || n == 0 || parts[n-1].mark {
			parts = append(parts, part{text: l, line: line, mark: bare})
		} else {
			parts[n-1].text += l
		}
		line++
	}
	return parts
}

func (in *Injection) document(d part, report *Report, o Options) (string, error) {
	if d.mark {
		return d.text, nil
	}
	var root, more yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(d.text))
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return d.text, nil // comments only
	} else if err != nil {
		return "", fmt.Errorf("manifest: document at line %d: %w", d.line, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("manifest: document at line %d: want --- between two documents", d.line)
	}
	if recursive(&root, map[*yaml.Node]bool{}) {
		return "", fmt.Errorf("manifest: document at line %d: an anchor contains itself", d.line)
	}
	before := clone(&root)
	objects := []*yaml.Node{resolve(&root)}
	if list := get(&root, "items"); strings.HasSuffix(textOf(get(&root, "kind")), "List") && list != nil {
		objects = items(list)
	}
	changed := false
	for _, object := range objects {
		done, err := in.object(&root, object, report, o)
		if err != nil {
			return "", fmt.Errorf("manifest: line %d: %s: %w", d.line+max(object.Line, 1)-1, title(object), err)
		}
		changed = changed || done
	}
	if !changed {
		return d.text, nil
	}
	if text, ok := splice(d.text, before, &root); ok {
		return text, nil
	}
	var b bytes.Buffer
	if strings.HasPrefix(d.text, "---") {
		b.WriteString("---\n")
	}
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&root), enc.Close()); err != nil {
		return "", fmt.Errorf("manifest: document at line %d: %w", d.line, err)
	}
	return b.String(), nil
}

func (in *Injection) object(root, object *yaml.Node, report *Report, o Options) (bool, error) {
	changed, had := false, false
	var met []*yaml.Node // labels of its pods where they stand; what is changed may be written out elsewhere
	for i := range podsOf(object, get) {
		p := podsOf(object, get)[i] // as it is now: it may have been one with the pod before
		met = append(met, p.labels)
		asks := in.wanted(p)
		switch {
		case !asks && !o.All:
			continue
		case !asks && get(p.spec, "containers") == nil && p.model == nil:
			continue // an operator fills it in: a predictor of another kind
		case p.has():
			had = true
			continue
		}
		if err := in.put(root, object, i, !asks); err != nil {
			return false, err
		}
		changed = true
	}
	switch {
	case changed:
		report.Injected = append(report.Injected, title(object))
	case had:
		report.Had = append(report.Had, title(object))
	}
	return changed, in.unmet(object, met, report)
}

func title(object *yaml.Node) string {
	name := textOf(get(object, "metadata", "name"))
	if name == "" {
		name = textOf(get(object, "metadata", "generateName"))
	}
	return textOf(get(object, "kind")) + "/" + name
}
