package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

const (
	// Label is what a pod asks for the sidecar by; its value is one of [Injection.OptIn].
	Label = "semproxy.io/inject"
	// ReleaseLabel says whose sidecar a pod has.
	ReleaseLabel = "semproxy.io/release"
	// ContainerAnnotation names the engine's container.
	ContainerAnnotation = "semproxy.io/engine-container"
	// PortAnnotation names the port on which the engine listens.
	PortAnnotation = "semproxy.io/engine-port"

	sidecarName = "semproxy"
	portWord    = "${ENGINE_PORT}"
	volumeWord  = "${SHM_VOLUME}"
	key         = "injection.yaml" // of the chart's ConfigMap
)

// Injection is what a pod is given, as the chart writes it (semproxy.injection in helm/semproxy/templates/_sidecar.tpl). In its
// texts ${ENGINE_PORT} and ${SHM_VOLUME} stand for the pod's own.
type Injection struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Release    string   `yaml:"release"`
	OptIn      []string `yaml:"optIn"`
	Engine     struct {
		Container    string      `yaml:"container"`
		Port         int         `yaml:"port"`
		VolumeMounts []yaml.Node `yaml:"volumeMounts"`
	} `yaml:"engine"`
	SharedMemory  yaml.Node   `yaml:"sharedMemory"`
	Ports         []int       `yaml:"ports"`
	ResourceClaim string      `yaml:"resourceClaim"`
	Sidecar       yaml.Node   `yaml:"sidecar"`
	PagePlane     yaml.Node   `yaml:"pagePlane"` // a second container; empty: the sidecar is one
	Volumes       []yaml.Node `yaml:"volumes"`
}

// Read finds the injection in a stream of manifests: the chart's rendered output, its ConfigMap as kubectl prints it, or the document by
// itself. There must be exactly one.
func Read(r io.Reader) (*Injection, error) {
	var found []*Injection
	dec := yaml.NewDecoder(r)
	for n := 1; ; n++ {
		var doc struct {
			APIVersion string            `yaml:"apiVersion"`
			Kind       string            `yaml:"kind"`
			Data       map[string]string `yaml:"data"`
		}
		var root yaml.Node
		if err := dec.Decode(&root); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("injection: document %d: %w", n, err)
		}
		if err := root.Decode(&doc); err != nil {
			continue // not a ConfigMap: its data has another shape
		}
		switch text, ok := doc.Data[key]; {
		case doc.Kind == "ConfigMap" && ok:
			in, err := parse([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("injection: document %d: data[%q]: %w", n, key, err)
			}
			found = append(found, in)
		case doc.Kind == "Injection":
			text, err := yaml.Marshal(&root)
			if err != nil {
				return nil, fmt.Errorf("injection: document %d: %w", n, err)
			}
			in, err := parse(text)
			if err != nil {
				return nil, fmt.Errorf("injection: document %d: %w", n, err)
			}
			found = append(found, in)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fmt.Errorf("injection: no ConfigMap with %s in it: render it with `helm template RELEASE helm/semproxy --set injection.mode=template`, "+
			"or print it with `kubectl get configmap RELEASE-injection -o yaml`", key)
	}
	return nil, fmt.Errorf("injection: %d of them (releases %q and %q ...), want one", len(found), found[0].Release, found[1].Release)
}

func parse(text []byte) (*Injection, error) {
	in := new(Injection)
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(in); err != nil {
		return nil, err
	}
	switch {
	case in.APIVersion != "semproxy.io/v1" || in.Kind != "Injection":
		return nil, fmt.Errorf("must be semproxy.io/v1, Injection; got %q, %q", in.APIVersion, in.Kind)
	case in.Sidecar.Kind != yaml.MappingNode || textOf(get(&in.Sidecar, "name")) != sidecarName:
		return nil, fmt.Errorf("sidecar must be a container of the name %q", sidecarName)
	case in.Release == "" || len(in.OptIn) == 0 || in.Engine.Port == 0:
		return nil, errors.New("release, optIn and engine.port must be set")
	}
	return in, nil
}
