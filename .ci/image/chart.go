package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.yaml.in/yaml/v3"
)

// The media types of a Helm chart in a registry (helm.sh/docs/topics/registries).
const (
	chartConfig  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartContent types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// chart is a packaged chart as an OCI artifact. Its config is Chart.yaml in JSON, its only layer the package as it is.
type chart struct {
	name, version    string
	config, manifest []byte
	layer            v1.Layer
}

// readChart reads a package that "helm package" or .ci/release made.
func readChart(file string, created time.Time) (*chart, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	text, err := chartFile(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var about map[string]any
	if err := yaml.Unmarshal(text, &about); err != nil {
		return nil, fmt.Errorf("%s: Chart.yaml: %w", file, err)
	}
	c := &chart{layer: static.NewLayer(data, chartContent)}
	c.name, _ = about["name"].(string)
	c.version, _ = about["version"].(string)
	if c.name == "" || c.version == "" {
		return nil, fmt.Errorf("%s: Chart.yaml has no name or no version", file)
	}
	if c.config, err = json.Marshal(about); err != nil {
		return nil, fmt.Errorf("%s: Chart.yaml: %w", file, err)
	}
	description, _ := about["description"].(string)
	return c, c.describe(map[string]string{
		"org.opencontainers.image.title": c.name, "org.opencontainers.image.version": c.version,
		"org.opencontainers.image.description": description, "org.opencontainers.image.created": created.UTC().Format(time.RFC3339),
	})
}

// chartFile is the Chart.yaml of the package, not that of a chart within it.
func chartFile(data []byte) ([]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("there is no Chart.yaml in it")
		}
		if err != nil {
			return nil, err
		}
		if ok, _ := path.Match("*/Chart.yaml", h.Name); ok {
			return io.ReadAll(io.LimitReader(r, 1<<20))
		}
	}
}

// describe writes the manifest.
func (c *chart) describe(annotations map[string]string) error {
	config, size, err := v1.SHA256(bytes.NewReader(c.config))
	if err != nil {
		return err
	}
	layer, err := partial.Descriptor(c.layer)
	if err != nil {
		return err
	}
	c.manifest, err = json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Annotations: annotations,
		Config: v1.Descriptor{MediaType: chartConfig, Digest: config, Size: size},
		Layers: []v1.Descriptor{{MediaType: chartContent, Digest: layer.Digest, Size: layer.Size}},
	})
	return err
}

// write puts the chart into an OCI layout that is there.
func (c *chart) write(dir string) error {
	img, err := c.image()
	if err != nil {
		return err
	}
	p, err := layout.FromPath(dir)
	if err != nil {
		return err
	}
	return p.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "charts/" + c.name + "-" + c.version}))
}

// push sends the chart to charts/NAME beside a repository, where "helm install oci://HOST/.../charts/NAME" looks for it.
func (c *chart) push(ctx context.Context, repository string, w io.Writer) error {
	img, err := c.image()
	if err != nil {
		return err
	}
	tag, err := name.NewTag(path.Join(path.Dir(repository), "charts", c.name) + ":" + c.version)
	if err != nil {
		return fmt.Errorf("--push: %w", err)
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "pushed oci://%s@%s\n", tag, digest)
	return err
}

// image is the chart as the library pushes and stores it.
func (c *chart) image() (v1.Image, error) { return partial.CompressedToImage(c) }

// MediaType, RawManifest, RawConfigFile and LayerByDigest implement partial.CompressedImageCore.
func (c *chart) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }
func (c *chart) RawManifest() ([]byte, error)        { return c.manifest, nil }
func (c *chart) RawConfigFile() ([]byte, error)      { return c.config, nil }
func (c *chart) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	if d, err := c.layer.Digest(); err != nil || d != h {
		return nil, fmt.Errorf("no layer %s", h)
	}
	return c.layer, nil
}
