package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	spdxjson "github.com/spdx/tools-golang/json"
)

const testVersion = "0.0.0-test"

// built once for all tests: the plain image for both architectures, the one with GPU support for this one.
var images = sync.OnceValues(func() (imageSet, error) { return buildAll("../..") })

func buildAll(root string) (imageSet, error) {
	o, err := parse(context.Background(), []string{"--root", root, "--version", testVersion, "--gpu-arch", runtime.GOARCH})
	if err != nil {
		return nil, err
	}
	o.revision = "test" // the other folder is no repository
	return o.build(context.Background())
}

// need skips where Debian's libc6 cannot be had; SEMPROXY_TEST_REQUIRE=deb makes that a failure.
func need(t *testing.T) imageSet {
	t.Helper()
	_, err := exec.LookPath("dpkg-deb")
	if err == nil {
		_, err = fetchGlibc(t.Context(), runtime.GOARCH)
	}
	if err != nil && !slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "deb") {
		t.Skipf("needs Debian's libc6: %v", err)
	}
	set, err := images()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTheSameSourcesInAnotherFolderGiveTheSameDigests(t *testing.T) {
	set := need(t)
	t.Setenv("SOURCE_DATE_EPOCH", timeOf(t, set))
	dir := t.TempDir()
	files, err := exec.Command("git", "-C", "../..", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(err)
	}
	for f := range strings.Lines(string(files)) {
		f = strings.TrimSpace(f)
		data, err := os.ReadFile("../../" + f)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	again, err := buildAll(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range set {
		if set[i].digest != again[i].digest {
			t.Errorf("%s: %s, and %s from another folder", set[i].name, set[i].digest, again[i].digest)
		}
		for j := range set[i].images {
			if !bytes.Equal(set[i].images[j].sbom, again[i].images[j].sbom) {
				t.Errorf("%s: the bills of materials differ", set[i].name)
			}
		}
	}
}

func timeOf(t *testing.T, set imageSet) string {
	t.Helper()
	c, err := set[0].images[0].image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(c.Created.Unix(), 10)
}

func TestEachImageRunsAsAnOrdinaryUserInARootOfItsOwn(t *testing.T) {
	for _, tag := range need(t) {
		for _, b := range tag.images {
			if b.arch != runtime.GOARCH {
				continue
			}
			root := t.TempDir()
			unpack(t, b.image, root)
			for _, args := range [][]string{{"version"}, {"demo", "--color", "never"}} {
				out, err := inside(t, b.image, root, args...)
				told := strings.HasPrefix(out, "semproxy "+testVersion+"\ncommit ") && !strings.Contains(out, "unknown")
				if args[0] == "demo" {
					told = strings.Contains(out, "15 of 15 pages equal")
				}
				if err != nil || !told {
					t.Errorf("%s: semproxy %v: %v\n%s", tag.name, args, err, out)
				}
			}
			// Only the image with GPU support looks for a driver, which this root does not have.
			out, err := inside(t, b.image, root, "gpu", "info")
			if gpu := strings.HasSuffix(tag.name, "-gpu"); gpu != strings.Contains(out, "libcuda") {
				t.Errorf("%s: semproxy gpu info: %v\n%s", tag.name, err, out)
			}
		}
	}
}

// inside runs the image's entry point as its user in root.
func inside(t *testing.T, img v1.Image, root string, args ...string) (string, error) {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c.Config.User != "65532:65532" {
		t.Fatalf("the image's user is %q", c.Config.User)
	}
	cmd := exec.Command(c.Config.Entrypoint[0], args...)
	cmd.Dir, cmd.Env = "/", c.Config.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65532, Gid: 65532}
	} else {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 65532, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// unpack writes the image's files below root, and holds what no file of an image may be.
func unpack(t *testing.T, img v1.Image, root string) {
	t.Helper()
	r := mutate.Extract(img)
	defer func() { _ = r.Close() }()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Mode&0o6000 != 0 || h.Typeflag == tar.TypeReg && h.Mode&0o022 != 0 {
			t.Errorf("%s belongs to %d:%d with mode %o: others could change it, or become another user", h.Name, h.Uid, h.Gid, h.Mode)
		}
		at := filepath.Join(root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at, 0o755)
			if err == nil && h.Mode&0o1000 != 0 {
				err = os.Chmod(at, os.ModeSticky|0o777)
			}
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, at)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(at, data, os.FileMode(h.Mode))
			}
		default:
			t.Errorf("%s is of type %c", h.Name, h.Typeflag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestALoopbackRegistryTakesTheImagesAndTheirBills(t *testing.T) {
	set := need(t)
	dir := filepath.Join(t.TempDir(), "image")
	if err := set.write(dir); err != nil {
		t.Fatal(err)
	}
	stored, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stored.IndexManifest(); err != nil || len(m.Manifests) != 2+2*3 {
		t.Errorf("the layout has %v, %v; want two indexes, three bills of materials and three provenances", m, err)
	}
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	repository := strings.TrimPrefix(s.URL, "http://") + "/semproxy"
	if err := set.push(t.Context(), repository, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, tag := range set {
		ref, err := name.NewTag(repository + ":" + tag.name)
		if err != nil {
			t.Fatal(err)
		}
		index, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := index.Digest(); err != nil || d != tag.digest {
			t.Errorf("%s came back as %v, %v; want %v", tag.name, d, err, tag.digest)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("%s: %v", tag.name, err)
		}
		for _, b := range tag.images {
			found, err := remote.Referrers(ref.Context().Digest(b.digest.String()))
			if err != nil {
				t.Fatal(err)
			}
			m, err := found.IndexManifest()
			if err != nil || len(m.Manifests) != 2 {
				t.Fatalf("%s for %s is referred to by %+v, %v; want its bill of materials and its provenance", tag.name, b.arch, m, err)
			}
			kinds := []string{m.Manifests[0].ArtifactType, m.Manifests[1].ArtifactType}
			if slices.Sort(kinds); !slices.Equal(kinds, []string{spdxType, provenanceType}) {
				t.Errorf("%s for %s is referred to by %v", tag.name, b.arch, kinds)
			}
		}
	}
}

func TestTheBillOfMaterialsNamesWhatIsInTheImage(t *testing.T) {
	for _, tag := range need(t) {
		for _, b := range tag.images {
			doc, err := spdxjson.Read(bytes.NewReader(b.sbom))
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]string{}
			for _, p := range doc.Packages {
				have[p.PackageName] = p.PackageVersion
			}
			mod, err := os.ReadFile("../../go.mod")
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"github.com/nats-io/nats-server/v2", "github.com/redis/go-redis/v9", "github.com/gin-gonic/gin"} {
				if have[want] == "" || !strings.Contains(string(mod), want+" "+have[want]) {
					t.Errorf("%s: %s has version %q, not go.mod's", tag.name, want, have[want])
				}
			}
			gpu := strings.HasSuffix(tag.name, "-gpu")
			if (have["libc6"] != "") != gpu || (have["github.com/ebitengine/purego"] != "") != gpu {
				t.Errorf("%s: libc6 %q, purego %q; want them in the image with GPU support only", tag.name, have["libc6"], have["github.com/ebitengine/purego"])
			}
			if have["stdlib"] != runtime.Version() {
				t.Errorf("%s: Go's version is %q, want %q", tag.name, have["stdlib"], runtime.Version())
			}
		}
	}
}

// The provenance is SLSA's, of the image, and names the commit; a signer takes it as it is.
func TestTheProvenanceSaysWhatTheImageIsMadeOf(t *testing.T) {
	for _, tag := range need(t) {
		for _, b := range tag.images {
			var s statement
			if err := json.Unmarshal(b.provenance, &s); err != nil {
				t.Fatal(err)
			}
			if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" || len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != b.digest.Hex {
				t.Errorf("%s: got %+v, want SLSA's provenance of %s", tag.name, s, b.digest)
			}
			d := s.Predicate.Definition
			if gpu := strings.HasSuffix(tag.name, "-gpu"); d.External["gpu"] != gpu || d.External["architecture"] != b.arch || (len(d.Dependencies) == 3) != gpu {
				t.Errorf("%s: got %+v, want its architecture, and libc6 with GPU support only", tag.name, d)
			}
			if from := d.Dependencies[0]; !strings.HasPrefix(from.URI, "git+https://") || d.Dependencies[1].URI != "pkg:golang/stdlib@"+runtime.Version()[2:] {
				t.Errorf("%s: got %+v, want the sources and Go", tag.name, d.Dependencies)
			}
		}
	}
}

func TestTheProvenanceOfAFolderHasAllFiles(t *testing.T) {
	dir := t.TempDir()
	if err := run(t.Context(), []string{"--version", "1.2.3", "--attest", dir}, io.Discard); err == nil || !strings.Contains(err.Error(), "has no files") {
		t.Errorf("an empty folder: got %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // its own file is not one of them
		if err := run(t.Context(), []string{"--version", "1.2.3", "--attest", dir}, io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "semproxy-1.2.3.intoto.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s statement
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if len(s.Subject) != 1 || s.Subject[0].Name != "a" || s.Subject[0].Digest["sha256"] != abc {
		t.Errorf("got %+v, want the file a", s.Subject)
	}
}

func TestAnImageOverTheBudgetIsRefused(t *testing.T) {
	set := need(t)
	var out bytes.Buffer
	if err := set.report(&out, 32<<20); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	if err := set.report(io.Discard, 1<<20); err == nil || !strings.Contains(err.Error(), "the budget is 1.0 MiB") {
		t.Errorf("got %v, want it over the budget", err)
	}
}

func TestFlagsWithoutMeaningAreRefused(t *testing.T) {
	for want, args := range map[string][]string{
		"must be ARCH=FILE":            {"--libc-deb", "file.deb"},
		`unknown argument "x"`:         {"--version", "1", "x"},
		"give --version":               {"--root", t.TempDir()},
		"no image with GPU support":    {"--version", "1", "--arch", "", "--gpu-arch", "riscv64"},
		"dpkg-deb --field nowhere.deb": {"--version", "1", "--arch", "", "--gpu-arch", runtime.GOARCH, "--libc-deb", runtime.GOARCH + "=nowhere.deb"},
	} {
		if err := run(t.Context(), append([]string{"--out", t.TempDir()}, args...), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}
