package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"
)

// bill is the SPDX document of an image: the modules that the Go linker put into the program, Go itself, and the C library.
func (o *options) bill(program, arch string, image v1.Hash, libc *glibc) ([]byte, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	blob, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(blob)
	root := pack("image", "semproxy", o.version, "Apache-2.0", fmt.Sprintf("pkg:oci/semproxy@%s?arch=%s", image, arch))
	root.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: image.Hex}}
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      fmt.Sprintf("semproxy-%s-%s", o.version, arch),
		DocumentNamespace: "https://semproxy.io/spdx/" + image.Hex,
		CreationInfo: &spdx.CreationInfo{
			Created:  o.created.Format(time.RFC3339),
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "semproxy-.ci/image"}},
		},
		Packages:      []*spdx.Package{root},
		Relationships: []*spdx.Relationship{relation("DOCUMENT", "DESCRIBES", root.PackageSPDXIdentifier)},
	}
	add := func(p *spdx.Package, of common.ElementID, how string) {
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, relation(of, how, p.PackageSPDXIdentifier))
	}
	main := pack("program", info.Main.Path, o.version, "Apache-2.0", "pkg:golang/"+info.Main.Path+"@"+o.version)
	main.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: hex.EncodeToString(sum[:])}}
	add(main, root.PackageSPDXIdentifier, "CONTAINS")
	add(pack("go", "stdlib", info.GoVersion, "BSD-3-Clause", "pkg:golang/stdlib@"+info.GoVersion[len("go"):]), main.PackageSPDXIdentifier, "DEPENDS_ON")
	for i, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(pack(fmt.Sprintf("module-%d", i), m.Path, m.Version, "NOASSERTION", "pkg:golang/"+m.Path+"@"+m.Version), main.PackageSPDXIdentifier, "DEPENDS_ON")
	}
	if libc != nil {
		add(pack("libc6", "libc6", libc.version, "LGPL-2.1-or-later", fmt.Sprintf("pkg:deb/debian/libc6@%s?arch=%s", libc.version, arch)),
			root.PackageSPDXIdentifier, "CONTAINS")
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		return nil, fmt.Errorf("the SPDX document: %w", err)
	}
	var b bytes.Buffer
	err = spdxjson.Write(doc, &b, spdxjson.Indent(" "))
	return b.Bytes(), err
}

func pack(id, name, version, licence, purl string) *spdx.Package {
	return &spdx.Package{
		PackageSPDXIdentifier: common.ElementID(id), PackageName: name, PackageVersion: version,
		PackageDownloadLocation: "NOASSERTION", PackageLicenseConcluded: licence, PackageLicenseDeclared: licence,
		PackageCopyrightText: "NOASSERTION", FilesAnalyzed: false, IsFilesAnalyzedTagPresent: true,
		PackageExternalReferences: []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: purl}},
	}
}

func relation(a common.ElementID, how string, b common.ElementID) *spdx.Relationship {
	return &spdx.Relationship{RefA: common.DocElementID{ElementRefID: a}, RefB: common.DocElementID{ElementRefID: b}, Relationship: how}
}
