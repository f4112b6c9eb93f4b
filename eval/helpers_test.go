package eval_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/eval"
)

// sharedDir is the folder of the measuring data that may not be shipped.
const sharedDir = "../../shared/data"

func needShared(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat(sharedDir); err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "shared") {
			t.Fatalf("SEMPROXY_TEST_REQUIRE names shared, but %v", err)
		}
		t.Skip("the measuring data are not here")
	}
	return sharedDir
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loadModel(t testing.TB, dir string) *eval.Model {
	t.Helper()
	config, err := eval.ParseConfig(readFile(t, filepath.Join(dir, "config.json")))
	if err != nil {
		t.Fatal(err)
	}
	w := eval.Safetensors{}
	if err := w.Add("model.safetensors", readFile(t, filepath.Join(dir, "model.safetensors"))); err != nil {
		t.Fatal(err)
	}
	m, err := eval.Load(config, w)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tensors(t testing.TB, file string) eval.Safetensors {
	t.Helper()
	w := eval.Safetensors{}
	if err := w.Add(file, readFile(t, file)); err != nil {
		t.Fatal(err)
	}
	return w
}

func ints(t testing.TB, w eval.Safetensors, name string) []int32 {
	t.Helper()
	_, dtype, data, ok := w.Tensor(name)
	if !ok || dtype != "I32" {
		t.Fatalf("no I32 tensor %s", name)
	}
	out := make([]int32, len(data)/4)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return out
}

// floats widens F16 and F32 by their definition, apart from the code under test.
func floats(t testing.TB, w eval.Safetensors, name string) []float64 {
	t.Helper()
	_, dtype, data, ok := w.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	if dtype == "F32" {
		out := make([]float64, len(data)/4)
		for i := range out {
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])))
		}
		return out
	}
	out := make([]float64, len(data)/2)
	for i := range out {
		h := binary.LittleEndian.Uint16(data[2*i:])
		e, m := int(h>>10&31), float64(h&0x3ff)
		if e == 0 {
			out[i] = math.Ldexp(m, -24)
		} else {
			out[i] = math.Ldexp(1024+m, e-25)
		}
		if h&0x8000 != 0 {
			out[i] = -out[i]
		}
	}
	return out
}
