package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// provenanceType is of an in-toto statement, which a signer (such as cosign attest, without keys) takes as it is.
const provenanceType = "application/vnd.in-toto+json"

// statement is an in-toto statement (https://in-toto.io/Statement/v1) whose predicate is SLSA's provenance.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []artifact `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     provenance `json:"predicate"`
}

type artifact struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// provenance is https://slsa.dev/provenance/v1: what was built how, of what, by what. It has no time of its own, so that the same
// sources give the same bytes.
type provenance struct {
	Definition struct {
		Type         string         `json:"buildType"`
		External     map[string]any `json:"externalParameters"`
		Internal     map[string]any `json:"internalParameters"`
		Dependencies []artifact     `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Run struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

const sources = "https://github.com/semproxy/semproxy"

// attest is the provenance of some artifacts, which were made with these parameters.
func (o *options) attest(subject []artifact, parameters map[string]any, more ...artifact) ([]byte, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", Subject: subject, PredicateType: "https://slsa.dev/provenance/v1"}
	d := &s.Predicate.Definition
	d.Type = "https://semproxy.io/build/release/v1"
	d.External = map[string]any{"version": o.version}
	for name, value := range parameters {
		d.External[name] = value
	}
	d.Internal = map[string]any{"SOURCE_DATE_EPOCH": o.created.Unix()}
	source := artifact{URI: "git+" + sources}
	if o.revision != "" {
		source = artifact{URI: "git+" + sources + "@" + o.revision, Digest: map[string]string{"gitCommit": o.revision}}
	}
	d.Dependencies = append([]artifact{source, {URI: "pkg:golang/stdlib@" + runtime.Version()[len("go"):]}}, more...)
	s.Predicate.Run.Builder.ID = sources + "/tree/main/.ci/image"
	return json.MarshalIndent(s, "", " ")
}

// ofImage is the provenance of an image.
func (o *options) ofImage(arch string, digest v1.Hash, libc *glibc) ([]byte, error) {
	var more []artifact
	if libc != nil {
		more = append(more, artifact{URI: fmt.Sprintf("pkg:deb/debian/libc6@%s?arch=%s", libc.version, arch)})
	}
	return o.attest([]artifact{{Name: "semproxy", Digest: map[string]string{digest.Algorithm: digest.Hex}}},
		map[string]any{"architecture": arch, "gpu": libc != nil}, more...)
}

// attestFolder writes the provenance of all files of a folder beside them.
func (o *options) attestFolder(dir string) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	name := fmt.Sprintf("semproxy-%s.intoto.json", o.version)
	var subject []artifact
	for _, e := range entries {
		if e.IsDir() || e.Name() == name {
			continue
		}
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		_ = f.Close() // it was only read
		if err != nil {
			return err
		}
		subject = append(subject, artifact{Name: e.Name(), Digest: map[string]string{"sha256": hex.EncodeToString(sum.Sum(nil))}})
	}
	if len(subject) == 0 {
		return fmt.Errorf("--attest: %s has no files", dir)
	}
	text, err := o.attest(subject, nil)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644)
}
