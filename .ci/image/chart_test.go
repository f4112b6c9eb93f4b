package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// packed packs files as "helm package" does.
func packed(t *testing.T, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "chart.tgz")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// helm finds the one that .ci/chart installs.
func helm(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"../../bin/helm", "helm"} {
		if found, err := exec.LookPath(p); err == nil {
			path, err := filepath.Abs(found)
			if err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "helm") {
		t.Fatal("SEMPROXY_TEST_REQUIRE names helm, and there is none (make test-chart installs it)")
	}
	t.Skip("needs helm")
	return ""
}

// The chart of this tree, pushed to a registry and pulled by helm, is the same package.
func TestHelmPullsTheChartThatWasPushed(t *testing.T) {
	program := helm(t)
	files := map[string]string{}
	for _, f := range []string{"Chart.yaml", "values.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "helm", "semproxy", f))
		if err != nil {
			t.Fatal(err)
		}
		files["semproxy/"+f] = string(data)
	}
	file := packed(t, files)
	c, err := readChart(file, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := layout.Write(dir, empty.Index); err != nil {
		t.Fatal(err)
	}
	if err := c.write(dir); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	var said bytes.Buffer
	if err := c.push(t.Context(), host+"/org/semproxy", &said); err != nil || !strings.Contains(said.String(), "/org/charts/semproxy:"+c.version+"@sha256:") {
		t.Fatalf("%v: said %q", err, said.String())
	}
	tag, err := name.NewTag(host + "/org/charts/semproxy:" + c.version)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(tag)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := img.Manifest(); err != nil || m.Config.MediaType != chartConfig || len(m.Layers) != 1 || m.Layers[0].MediaType != chartContent {
		t.Errorf("the registry has %+v, %v", m, err)
	}
	if stored, err := layout.ImageIndexFromPath(dir); err != nil {
		t.Error(err)
	} else if err := validate.Index(stored, validate.Fast); err != nil {
		t.Error(err)
	}
	to := t.TempDir()
	cmd := exec.Command(program, "pull", "oci://"+host+"/org/charts/semproxy", "--version", c.version, "--plain-http", "--destination", to)
	cmd.Env = append(os.Environ(), "HOME="+to, "HELM_CACHE_HOME="+to, "HELM_CONFIG_HOME="+to, "HELM_DATA_HOME="+to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("helm pull: %v\n%s", err, out)
	}
	want, _ := os.ReadFile(file)
	if got, err := os.ReadFile(filepath.Join(to, "semproxy-"+c.version+".tgz")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("helm pulled %d bytes, %v; want the %d of the package", len(got), err, len(want))
	}
}

func TestAPackageThatIsNoChartIsRefused(t *testing.T) {
	for want, file := range map[string]string{
		"no Chart.yaml":         packed(t, map[string]string{"semproxy/values.yaml": "", "semproxy/charts/other/Chart.yaml": "name: other"}),
		"no name or no version": packed(t, map[string]string{"semproxy/Chart.yaml": "name: semproxy"}),
		"chart_test.go":         "chart_test.go",
		"no such file":          filepath.Join(t.TempDir(), "none.tgz"),
	} {
		if _, err := readChart(file, time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
