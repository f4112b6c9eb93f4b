package inject

import "go.yaml.in/yaml/v3"

// templates says where the kinds keep their pods' templates.
var templates = map[string][][]string{
	"Deployment":            {{"spec", "template"}},
	"StatefulSet":           {{"spec", "template"}},
	"DaemonSet":             {{"spec", "template"}},
	"ReplicaSet":            {{"spec", "template"}},
	"ReplicationController": {{"spec", "template"}},
	"Job":                   {{"spec", "template"}},
	"Rollout":               {{"spec", "template"}}, // Argo's
	"CronJob":               {{"spec", "jobTemplate", "spec", "template"}},
	"PodTemplate":           {{"template"}},
	"LeaderWorkerSet":       {{"spec", "leaderWorkerTemplate", "leaderTemplate"}, {"spec", "leaderWorkerTemplate", "workerTemplate"}},
}

// walk goes from a mapping to the value of a key: [get] looks, [own] makes it the object's own before it is changed.
type walk func(n *yaml.Node, keys ...string) *yaml.Node

// podsOf finds the pods in an object; none in an object of another kind.
func podsOf(object *yaml.Node, to walk) []pod {
	kind := textOf(get(object, "kind"))
	switch kind {
	case "Pod":
		return []pod{plain(object, to)}
	case "InferenceService":
		return predictor(object, to)
	}
	var all []pod
	for _, path := range templates[kind] {
		if t := to(object, path...); get(t, "spec") != nil {
			all = append(all, plain(t, to))
		}
	}
	return all
}

// known says whether podsOf finds the pods of such an object.
func known(kind string) bool {
	return kind == "Pod" || kind == "InferenceService" || templates[kind] != nil
}

// plain is a pod or a pod's template.
func plain(n *yaml.Node, to walk) pod {
	meta := to(n, "metadata")
	return pod{labels: to(meta, "labels"), annotations: get(meta, "annotations"), owner: n, labelled: meta, spec: to(n, "spec")}
}

// predictor is the pod of a KServe InferenceService: the predictor is the pod's spec with labels and annotations of its own, before which
// those of the object count less.
func predictor(object *yaml.Node, to walk) []pod {
	spec := to(object, "spec", "predictor")
	if spec == nil || spec.Kind != yaml.MappingNode {
		return nil
	}
	p := pod{labels: to(object, "metadata", "labels"), owner: object, labelled: to(object, "metadata"), spec: spec, model: to(spec, "model")}
	if its := to(spec, "labels"); get(its, Label) != nil {
		p.labels, p.labelled = its, spec
	}
	p.annotations = merged(get(object, "metadata", "annotations"), get(spec, "annotations"))
	return []pod{p}
}

// merged has the keys of both mappings; those of the second win.
func merged(first, second *yaml.Node) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, n := range []*yaml.Node{first, second} {
		if n != nil && n.Kind == yaml.MappingNode {
			m.Content = append(m.Content, n.Content...)
		}
	}
	return m
}
