package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who the program runs as: Kubernetes wants a number to see that it is not root.
const user = "65532:65532"

// file is an entry of a layer. A link has no data.
type file struct {
	name string // without a leading slash
	mode int64
	data []byte
	link string
}

// tarOf writes the files and the folders that they lie in, sorted, all root's and of one time.
func tarOf(files []file, at time.Time) ([]byte, error) {
	all := slices.Clone(files)
	have := map[string]bool{}
	for _, f := range files {
		have[f.name] = true
	}
	for _, f := range files {
		for dir := path.Dir(f.name); dir != "."; dir = path.Dir(dir) {
			if !have[dir+"/"] && !have[dir] {
				have[dir+"/"] = true
				all = append(all, file{name: dir + "/", mode: 0o755})
			}
		}
	}
	slices.SortFunc(all, func(a, b file) int { return strings.Compare(a.name, b.name) })
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range all {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: at, Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func layerOf(files []file, at time.Time) (v1.Layer, error) {
	blob, err := tarOf(files, at)
	if err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil },
		tarball.WithCompressionLevel(9), tarball.WithCompressedCaching)
}

// baseFiles are what a program without a shell needs: names for its user, the public roots, and a folder for temporary files.
func baseFiles() []file {
	var roots bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil { // a file cannot say what a constraint does
			_ = pem.Encode(&roots, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate}) // a buffer does not fail
		}
	}
	return []file{
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/sbin/nologin\nsemproxy:x:65532:65532:semproxy:/:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nsemproxy:x:65532:\n")},
		{name: "etc/nsswitch.conf", mode: 0o644, data: []byte("hosts: files dns\n")},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: roots.Bytes()},
		{name: "tmp/", mode: 0o1777},
	}
}

// programFiles are semproxy, its licence, and those of the code of others in it.
func programFiles(program, licence, notices string) ([]file, error) {
	files := []file{
		{name: "usr/bin/semproxy", mode: 0o755},
		{name: "usr/share/doc/semproxy/LICENSE", mode: 0o644},
		{name: "usr/share/doc/semproxy/THIRD-PARTY-NOTICES", mode: 0o644},
	}
	for i, from := range []string{program, licence, notices} {
		var err error
		if files[i].data, err = os.ReadFile(from); err != nil {
			return nil, err
		}
	}
	return files, nil
}
