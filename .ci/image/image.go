package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageSet are the tags that one build makes.
type imageSet []*tagged

// tagged is an index of images, one per architecture.
type tagged struct {
	name   string
	index  v1.ImageIndex
	digest v1.Hash
	images []built
}

// built is an image with its bill of materials and its provenance, which refer to it.
type built struct {
	arch              string
	image             v1.Image
	papers            []v1.Image
	digest            v1.Hash
	sbom, provenance  []byte
	compressed, files int64
}

const spdxType = "application/spdx+json"

// build makes every image.
func (o *options) build(ctx context.Context) (imageSet, error) {
	work, err := os.MkdirTemp("", "semproxy-image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := o.writeNotices(ctx, filepath.Join(work, notices)); err != nil {
		return nil, err
	}
	var set imageSet
	for _, kind := range []struct {
		name  string
		archs []string
		gpu   bool
	}{{o.version, o.platforms, false}, {o.version + "-gpu", o.gpu, true}} {
		if len(kind.archs) == 0 {
			continue
		}
		t := &tagged{name: kind.name, index: mutate.IndexMediaType(empty.Index, types.OCIImageIndex)}
		for _, arch := range kind.archs {
			b, err := o.one(ctx, work, arch, kind.gpu)
			if err != nil {
				return nil, err
			}
			t.images = append(t.images, *b)
			t.index = mutate.AppendManifests(t.index, mutate.IndexAddendum{Add: b.image, Descriptor: v1.Descriptor{
				MediaType: types.OCIManifestSchema1, Platform: &v1.Platform{OS: "linux", Architecture: arch},
			}})
		}
		if t.digest, err = t.index.Digest(); err != nil {
			return nil, err
		}
		set = append(set, t)
	}
	return set, nil
}

// notices is the file, in the folder of the work, with the licences of the code of others.
const notices = "THIRD-PARTY-NOTICES"

func (o *options) writeNotices(ctx context.Context, name string) error {
	root, err := filepath.Abs(o.root)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "run", ".", "--root", root, "--notices", name)
	cmd.Dir, cmd.Stderr = filepath.Join(root, ".ci", "licences"), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the licences of others: %w", err)
	}
	return nil
}

// one makes the image of an architecture.
func (o *options) one(ctx context.Context, work, arch string, gpu bool) (*built, error) {
	var libc *glibc
	if gpu { // first: it fails sooner
		var err error
		if libc, err = readGlibc(ctx, arch, o.debs[arch]); err != nil {
			return nil, err
		}
	}
	program, err := o.compile(ctx, work, arch, gpu)
	if err != nil {
		return nil, err
	}
	own, err := programFiles(program, filepath.Join(o.root, "LICENSE"), filepath.Join(work, notices))
	if err != nil {
		return nil, err
	}
	layers := [][]file{baseFiles(), own}
	if libc != nil {
		layers = [][]file{baseFiles(), libc.files, own}
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, files := range layers {
		l, err := layerOf(files, o.created)
		if err != nil {
			return nil, err
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: types.OCILayer, History: v1.History{
			Created: v1.Time{Time: o.created}, CreatedBy: "semproxy's .ci/image, layer " + fmt.Sprint(i),
		}})
		if err != nil {
			return nil, err
		}
	}
	if img, err = mutate.ConfigFile(img, o.config(img, arch, gpu)); err != nil {
		return nil, err
	}
	return o.describe(img, arch, program, libc)
}

// config says how the image is run.
func (o *options) config(img v1.Image, arch string, gpu bool) *v1.ConfigFile {
	c, err := img.ConfigFile()
	if err != nil { // of an image in memory
		panic(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Created = "linux", arch, v1.Time{Time: o.created}
	c.Config = v1.Config{
		Entrypoint: []string{"/usr/bin/semproxy"}, Cmd: []string{"serve"}, User: user, WorkingDir: "/",
		Env: []string{"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
		Labels: map[string]string{
			"org.opencontainers.image.title": "semproxy", "org.opencontainers.image.version": o.version,
			"org.opencontainers.image.revision": o.revision, "org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.description": "Compresses KV-cache pages by meaning, beside an inference engine",
		},
	}
	if gpu { // what of the driver NVIDIA's container runtime is to mount, where a GPU is given
		c.Config.Env = append(c.Config.Env, "NVIDIA_DRIVER_CAPABILITIES=compute,utility")
	}
	return c
}

// describe weighs the image and writes its bill of materials and its provenance.
func (o *options) describe(img v1.Image, arch, program string, libc *glibc) (*built, error) {
	b := &built{arch: arch, image: img}
	var err error
	if b.digest, err = img.Digest(); err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return nil, err
		}
		b.compressed += n
		r, err := l.Uncompressed()
		if err != nil {
			return nil, err
		}
		n, err = io.Copy(io.Discard, r)
		_ = r.Close() // in memory
		if err != nil {
			return nil, err
		}
		b.files += n
	}
	if b.sbom, err = o.bill(program, arch, b.digest, libc); err != nil {
		return nil, err
	}
	desc, err := descriptor(img)
	if err != nil {
		return nil, err
	}
	if b.provenance, err = o.ofImage(arch, b.digest, libc); err != nil {
		return nil, err
	}
	for _, paper := range []struct {
		kind types.MediaType
		text []byte
	}{{spdxType, b.sbom}, {provenanceType, b.provenance}} {
		one, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), paper.kind),
			static.NewLayer(paper.text, paper.kind))
		if err != nil {
			return nil, err
		}
		b.papers = append(b.papers, mutate.Subject(one, *desc).(v1.Image))
	}
	return b, nil
}

func descriptor(img v1.Image) (*v1.Descriptor, error) {
	d, err := img.Digest()
	if err != nil {
		return nil, err
	}
	size, err := img.Size()
	if err != nil {
		return nil, err
	}
	return &v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: size, Digest: d}, nil
}

// write replaces dir by an OCI layout of the tags, their bills of materials and provenances, with the latter two as files beside it too.
func (s imageSet) write(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, t := range s {
		if err := p.AppendIndex(t.index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": t.name})); err != nil {
			return err
		}
		for _, i := range t.images {
			for _, paper := range i.papers {
				if err := p.AppendImage(paper); err != nil {
					return err
				}
			}
			for kind, text := range map[string][]byte{"spdx": i.sbom, "intoto": i.provenance} {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("semproxy-%s-%s.%s.json", t.name, i.arch, kind)), text, 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// push sends everything to a repository. One on loopback is spoken to without TLS.
func (s imageSet) push(ctx context.Context, repository string, w io.Writer) error {
	for _, t := range s {
		tag, err := name.NewTag(repository + ":" + t.name)
		if err != nil {
			return fmt.Errorf("--push: %w", err)
		}
		if err := remote.WriteIndex(tag, t.index, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("push %s: %w", tag, err)
		}
		for _, i := range t.images {
			for _, paper := range i.papers {
				digest, err := paper.Digest()
				if err != nil {
					return err
				}
				if err := remote.Write(tag.Context().Digest(digest.String()), paper, remote.WithContext(ctx)); err != nil {
					return fmt.Errorf("push what belongs to %s: %w", tag, err)
				}
			}
		}
		fmt.Fprintf(w, "pushed %s@%s\n", tag, t.digest)
	}
	return nil
}
