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
	"CronJob":               {{"spec", "jobTemplate", "spec", "template"}},
	"PodTemplate":           {{"template"}},
	"LeaderWorkerSet":       {{"spec", "leaderWorkerTemplate", "leaderTemplate"}, {"spec", "leaderWorkerTemplate", "workerTemplate"}},
}

// podsOf finds the pods in an object; none in an object of another kind.
func podsOf(object *yaml.Node) []pod {
	kind := textOf(get(object, "kind"))
	switch kind {
	case "Pod":
		return []pod{plain(object)}
	case "InferenceService":
		return predictor(object)
	}
	var all []pod
	for _, path := range templates[kind] {
		if t := get(object, path...); get(t, "spec") != nil {
			all = append(all, plain(t))
		}
	}
	return all
}

// plain is a pod or a pod's template.
func plain(n *yaml.Node) pod {
	meta := get(n, "metadata")
	if meta == nil {
		meta = ensure(n, "metadata", yaml.MappingNode)
	}
	return pod{labels: get(meta, "labels"), annotations: get(meta, "annotations"), labelled: meta, spec: get(n, "spec")}
}

// predictor is the pod of a KServe InferenceService: the predictor is the pod's spec with labels and annotations of its own, before which
// those of the object count less.
func predictor(object *yaml.Node) []pod {
	spec := get(object, "spec", "predictor")
	if spec == nil || spec.Kind != yaml.MappingNode {
		return nil
	}
	p := pod{labels: get(object, "metadata", "labels"), labelled: get(object, "metadata"), spec: spec, model: get(spec, "model")}
	if own := get(spec, "labels"); get(own, Label) != nil {
		p.labels, p.labelled = own, spec
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
