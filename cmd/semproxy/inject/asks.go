package inject

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// unmet refuses an object that asks for the sidecar where it cannot be given: an engine would run without proxy, tenants and limits,
// and nobody would be told. Labels that an object merely carries, as a Service of the same application does, are none of it. met are
// the labels that were looked at.
func (in *Injection) unmet(object *yaml.Node, met []*yaml.Node, report *Report) error {
	kind := textOf(get(object, "kind"))
	served := false
	for _, p := range podsOf(object, get) {
		met = append(met, p.labels)
		served = served || in.wanted(p) || p.has()
	}
	asks := func(labels *yaml.Node) bool { return slices.Contains(in.OptIn, textOf(get(labels, Label))) }
	itself := get(object, "metadata", "labels")
	var asked []string
	pods := false // containers stand somewhere in it
	scan(object, "", func(path string, n *yaml.Node) bool {
		if (&pod{spec: n}).has() || (&pod{spec: get(n, "spec")}).has() {
			served = true // somebody has put it there
			return false
		}
		pods = pods || get(n, "containers") != nil
		if name := textOf(get(n, "name")) + textOf(get(n, "key")); name == Label && !known(kind) && slices.Contains(in.OptIn, textOf(get(n, "value"))) {
			asked = append(asked, strings.TrimSuffix(path, ".")) // labels as a list
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			labels := resolve(n.Content[i+1])
			if !strings.HasSuffix(strings.ToLower(name), "labels") || name == "matchLabels" || !asks(labels) || labels == itself || slices.Contains(met, labels) {
				continue
			}
			// In a known kind only what is a pod counts: a volume claim or a CronJob's Job has labels of the whole application.
			if !known(kind) || get(n, "containers") != nil {
				asked = append(asked, path+name)
			}
		}
		if labels := get(n, "metadata", "labels"); known(kind) && get(n, "spec", "containers") != nil && asks(labels) && labels != itself && !slices.Contains(met, labels) {
			asked = append(asked, path+"metadata.labels")
		}
		return true
	})
	switch {
	case !asks(itself) || slices.Contains(met, itself) || served:
	case known(kind):
		report.Mislabelled = append(report.Mislabelled, title(object))
	case pods:
		asked = append(asked, "metadata.labels")
	}
	if len(asked) == 0 {
		return nil
	}
	return fmt.Errorf("asks for the sidecar at %s, and where an object of this kind keeps its pods is not known here. "+
		"On Kubernetes 1.36 or newer the chart's injection.mode admissionPolicy gives it to pods of every kind when they are created; "+
		"else write it into the pod's template by hand, or remove the label %s", strings.Join(asked, " and "), Label)
}

// scan shows every mapping of a tree where it stands, with the path to it, which ends in a dot; what visit refuses is not entered.
func scan(n *yaml.Node, path string, visit func(path string, n *yaml.Node) bool) {
	switch n.Kind {
	case yaml.MappingNode:
		if !visit(path, n) {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if key := n.Content[i].Value; key == "<<" {
				scan(unless(n, n.Content[i+1]), path, visit)
			} else {
				scan(n.Content[i+1], path+key+".", visit)
			}
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			scan(c, strings.TrimSuffix(path, ".")+"["+strconv.Itoa(i)+"].", visit)
		}
	}
}

// unless is what a mapping merges that it does not have itself.
func unless(n, merged *yaml.Node) *yaml.Node {
	if merged.Kind != yaml.MappingNode {
		return merged
	}
	rest := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(merged.Content); i += 2 {
		if index(n, merged.Content[i].Value) < 0 {
			rest.Content = append(rest.Content, merged.Content[i], merged.Content[i+1])
		}
	}
	return rest
}
