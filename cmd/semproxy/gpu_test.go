//go:build linux && (amd64 || arm64) && !nogpu

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/gpu/fake"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
)

// fakeGPU makes the fake driver the machine's.
func fakeGPU(t *testing.T) *fake.Control {
	t.Helper()
	path := fake.Library(t)
	t.Setenv("SEMPROXY_LIBCUDA", path)
	c := fake.Controls(t, path)
	t.Cleanup(c.Heal)
	return c
}

func metricsOf(t *testing.T, s *sidecartest.Sidecar) string {
	t.Helper()
	resp, err := http.Get(s.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A page over NATS is compressed on the GPU, and its reply, its span and the metrics say so. When the device fails under the
// next one, that is answered from the CPU, and so is said.
func TestPagesAreCompressedOnTheGPU(t *testing.T) {
	control := fakeGPU(t)
	s := sidecartest.Start(t, func(c *config.Config) { c.Compress.Device, c.Compress.GPU.MemoryBytes = "cuda:0", 128<<20 })
	engine := func(name string) string {
		reply, err := s.Client(t, "acme", client.Options{}).Compress(context.Background(), sidecartest.Page(t, name))
		if err != nil {
			t.Fatal(err)
		}
		cores, err := page.DecodeCores(reply.Body, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		return cores.Engine
	}
	if got := engine("kjv"); got != "cuda:0" {
		t.Errorf("the reply's engine is %s, want cuda:0", got)
	}
	found := false
	for _, span := range s.Spans.Ended() {
		for _, a := range span.Attributes() {
			found = found || a.Key == semconv.Batch && a.Value.AsInt64() == 1 && span.Name() == semconv.SpanCompress
		}
	}
	if !found {
		t.Error("no compress span says how many pages its batch had")
	}
	control.Fault("kernel", 0, 1)
	if got := engine("kjv_facts"); !strings.HasPrefix(got, "cpu:") {
		t.Errorf("the device failed, but the reply's engine is %s", got)
	}
	text := metricsOf(t, s)
	for _, want := range []string{
		`semproxy_gpu_batch_count`, `semproxy_gpu_queue_seconds_count`, `semproxy_gpu_busy_seconds_total`, `semproxy_gpu_fallbacks_total`, `semproxy_reason="lost"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// A device that is named must be there; "auto" and "cpu" start without one.
func TestADeviceThatIsNamedMustBeThere(t *testing.T) {
	t.Setenv("SEMPROXY_LIBCUDA", filepath.Join(t.TempDir(), "libcuda.so.1"))
	out, err := exec.Command(program, "serve", "--compress-device", "cuda:0", "--nats-embedded-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "compress.device: cuda:0: no CUDA driver") {
		t.Errorf("got %v:\n%s", err, out)
	}
	for _, device := range []string{"auto", "cpu"} {
		s := sidecartest.Start(t, func(c *config.Config) { c.Compress.Device = device })
		if got := s.Device(); !strings.HasPrefix(got, "cpu:") {
			t.Errorf("%s: on %s", device, got)
		}
	}
}

func TestGPUInfoListsTheDevices(t *testing.T) {
	control := fakeGPU(t)
	read := func() (r gpuReport) {
		out, err := cli(t, "gpu", "info", "--json")
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		return r
	}
	if r := read(); len(r.Devices) != 1 || !r.Devices[0].Usable || r.Devices[0].Device != "cuda:0" || r.Version != "12.4" {
		t.Errorf("got %+v", r)
	}
	control.Fault("old", 0, 0)
	if r := read(); len(r.Devices) != 1 || r.Devices[0].Usable || !strings.Contains(r.Devices[0].Problem, "compute capability 7.0") {
		t.Errorf("an old device: got %+v", r)
	}
	control.Fault("driver", 0, 0)
	if r := read(); len(r.Devices) != 0 || !strings.Contains(r.Problem, "too old") {
		t.Errorf("an old driver: got %+v", r)
	}
	control.Heal()
	t.Setenv("SEMPROXY_LIBCUDA", filepath.Join(t.TempDir(), "libcuda.so.1"))
	if out, err := cli(t, "gpu", "info"); err != nil || !strings.Contains(out, "no CUDA driver") {
		t.Errorf("without a driver: got %v:\n%s", err, out)
	}
}
