package inject

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// pod is a pod, a pod's template, or what an operator makes one of.
type pod struct {
	labels      *yaml.Node // nil: none
	annotations *yaml.Node
	owner       *yaml.Node // what has the metadata
	labelled    *yaml.Node // the mapping whose labels the release's label goes into; nil: the owner has no metadata yet
	spec        *yaml.Node
	model       *yaml.Node // KServe: a container that the operator gives the name modelContainer; nil: there is none
}

// modelContainer is what KServe calls the container that it makes of a predictor's model.
const modelContainer = "kserve-container"

var portPattern = regexp.MustCompile(`^[1-9]\d{0,4}$`)

// wanted says whether the pod asks for the sidecar of this release.
func (in *Injection) wanted(p pod) bool {
	return slices.Contains(in.OptIn, textOf(get(p.labels, Label)))
}

// has says whether the pod has a sidecar already.
func (p *pod) has() bool {
	return slices.Contains(names(get(p.spec, "containers")), sidecarName) || slices.Contains(names(get(p.spec, "initContainers")), sidecarName)
}

// put gives a pod of the object, which has none, the sidecar, as the chart's MutatingAdmissionPolicy does, and refuses what its
// ValidatingAdmissionPolicy does. label: the pod gets the label as well. Nothing else that the document's anchors share is changed.
func (in *Injection) put(root, object *yaml.Node, which int, label bool) error {
	p := podsOf(object, get)[which]
	known := names(get(p.spec, "containers"))
	if p.model != nil && !slices.Contains(known, modelContainer) {
		known = append(known, modelContainer)
	}
	if len(known) == 0 {
		return fmt.Errorf("the pod has no containers")
	}
	name := in.Engine.Container
	if a := get(p.annotations, ContainerAnnotation); a != nil {
		name = textOf(a)
	} else if name == "" {
		name = known[0]
	}
	at := slices.Index(known, name)
	if at < 0 {
		return fmt.Errorf("the engine's container is to be %q, but the pod has only %q; set the annotation %s to one of them, or remove the label %s",
			name, known, ContainerAnnotation, Label)
	}
	port, err := in.port(p)
	if err != nil {
		return err
	}
	if in.ResourceClaim != "" && !slices.Contains(names(get(p.spec, "resourceClaims")), in.ResourceClaim) {
		return fmt.Errorf("gpu.access is dra, so the pod needs an entry %q in spec.resourceClaims, which the engine's container claims as well", in.ResourceClaim)
	}
	mine := owned{object: true}
	p = podsOf(object, mine.walk)[which]
	for _, k := range []string{"initContainers", "volumes"} {
		mine.walk(p.spec, k)
	}
	engine := mine.item(mine.walk(p.spec, "containers"), at)
	if engine == nil {
		engine = p.model
	}
	mine.walk(engine, "volumeMounts")
	mine.part(root)
	if label {
		labels := ensure(p.meta(), "labels", yaml.MappingNode)
		labels.Content = append(labels.Content, scalar(Label), scalar("true"))
	}
	in.change(p, engine, port)
	return nil
}

// port is the engine's port.
func (in *Injection) port(p pod) (string, error) {
	text := strconv.Itoa(in.Engine.Port)
	if a := get(p.annotations, PortAnnotation); a != nil {
		text = textOf(a)
	}
	if n, err := strconv.Atoi(text); err != nil || !portPattern.MatchString(text) || n > 65535 || slices.Contains(in.Ports, n) {
		return "", fmt.Errorf("the annotation %s must be the port on which the engine listens, 1 to 65535 and none of the sidecar's %v, got %q", PortAnnotation, in.Ports, text)
	}
	return text, nil
}

func (in *Injection) change(p pod, engine *yaml.Node, port string) {
	shared := in.SharedMemory.Kind == yaml.MappingNode
	volume, has := textOf(get(&in.SharedMemory, "name")), false
	for _, m := range items(get(engine, "volumeMounts")) {
		if strings.TrimSuffix(textOf(get(m, "mountPath")), "/") == "/dev/shm" && !has {
			volume, has = textOf(get(m, "name")), true
		}
	}
	words := strings.NewReplacer(portWord, port, volumeWord, volume)

	inits := ensure(p.spec, "initContainers", yaml.SequenceNode)
	added := []*yaml.Node{fill(&in.Sidecar, words)}
	if in.PagePlane.Kind == yaml.MappingNode {
		added = append(added, fill(&in.PagePlane, words))
	}
	inits.Content = slices.Insert(inits.Content, 0, added...)
	volumes := ensure(p.spec, "volumes", yaml.SequenceNode)
	for i := range in.Volumes {
		volumes.Content = append(volumes.Content, fill(&in.Volumes[i], words))
	}
	mounts := ensure(engine, "volumeMounts", yaml.SequenceNode)
	for i := range in.Engine.VolumeMounts {
		mounts.Content = append(mounts.Content, fill(&in.Engine.VolumeMounts[i], words))
	}
	if shared && !has {
		volumes.Content = append(volumes.Content, fill(&in.SharedMemory, words))
		mounts.Content = append(mounts.Content, &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{
			scalar("name"), scalar(volume), scalar("mountPath"), scalar("/dev/shm"),
		}})
	}
	labels := ensure(p.meta(), "labels", yaml.MappingNode)
	if get(labels, ReleaseLabel) == nil {
		labels.Content = append(labels.Content, scalar(ReleaseLabel), scalar(in.Release))
	}
}

// meta is the mapping whose labels are the pod's; it is made where there is none.
func (p *pod) meta() *yaml.Node {
	if p.labelled == nil {
		p.labelled = ensure(p.owner, "metadata", yaml.MappingNode)
	}
	return p.labelled
}
