package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/gpu/fake"
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

func TestBenchMeasuresBothDevices(t *testing.T) {
	fakeGPU(t)
	small := []string{"--heads", "1", "--tokens", "150", "--dim", "64", "--duration", "100ms", "--json"}
	for _, device := range []string{"cpu", "cuda:0"} {
		out, err := cli(t, append([]string{"page", "--device", device, "--gpu-memory", "64MiB"}, small...)...)
		if err != nil {
			t.Fatal(err)
		}
		var r benchReport
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		if !strings.HasPrefix(r.Device, device) || r.Pages == 0 || r.Rate <= 0 || r.MemoryCopy <= 0 || (r.GPU != nil) != (device != "cpu") || r.OnCPU != 0 {
			t.Errorf("%s: got %+v", device, r)
		}
	}
	for _, args := range [][]string{
		{"page", "--device", "gpu"}, {"page", "--dtype", "f8"}, {"page", "--method", "window"}, {"page", "--tokens", "0"},
		{"page", "--gpu-memory", "much"}, {"decode", "--device", "cpu"}, {"decode", "--compressed", "0"},
	} {
		if out, err := cli(t, args...); err == nil {
			t.Errorf("%v: got %s", args, out)
		}
	}
	out, err := cli(t, "decode", "--context", "64", "--batch", "1", "--kv-heads", "1", "--q-heads", "2", "--dim", "64", "--repeat", "1", "--compressed", "1,4")
	if err != nil || strings.Count(out, "\n") != 4 {
		t.Errorf("got %v:\n%s", err, out)
	}
}
