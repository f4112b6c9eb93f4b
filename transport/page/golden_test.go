package page

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files again: Go's, and Python's where it can run")

type appender interface {
	Append(dst []byte) ([]byte, error)
}

// pythonGoldens are the files that testdata/make_golden.py writes with Python's safetensors library, and what they hold.
func pythonGoldens() map[string]appender {
	wide := samplePage(BF16)
	wide.TokenIDs, wide.Positions = Ints64Of([]int64{5, 0, 7, 5, 1279}), Ints64Of([]int64{16, 17, 18, 20, 21})
	return map[string]appender{
		"py_f16.page": fullPage(F16), "py_f32.page": samplePage(F32), "py_bf16_i64.page": wide,
		"py_f8e4m3.page": fullPage(F8E4M3), "py_f8e5m2.page": samplePage(F8E5M2),
		"py_bf16.cores": sampleCores(BF16), "py_f8e4m3.cores": sampleCores(F8E4M3),
		"py_f16_packed.cores": packedCores(F16), "py_f8e5m2_packed.cores": packedCores(F8E5M2),
		"py_bf16_dropped.cores": evicted(sampleCores(BF16)), "py_f8e4m3_packed_dropped.cores": evicted(packedCores(F8E4M3)),
	}
}

// goGoldens are written by this package, and read by Python's library.
func goGoldens() map[string]appender {
	scaled := fullPage(BF16)
	scaled.Rope = Rope{Type: "llama3", Theta: 500000, RotaryDim: 4, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 8192}
	text := samplePage(F8E4M3)
	text.QDType, text.QHeads, text.Window, text.Q = F32, 2, 1, pattern(F32, 16, 3)
	text.Extra = map[string]string{"note": "tab\t quote\" slash\\ é \u2028 \x01 < 漢"}
	one := samplePage(F32)
	one.Tokens, one.K, one.V = 1, pattern(F32, 16, 1), pattern(F32, 16, 2)
	one.TokenIDs, one.Positions = IntsOf([]int32{3}), IntsOf([]int32{16})
	bare := sampleCores(F32)
	bare.Assign, bare.Fidelity, bare.TraceParent = nil, nil, ""
	packed := packedCores(BF16)
	packed.Assign, packed.Fidelity, packed.TraceParent = nil, nil, ""
	all := map[string]appender{
		"go_llama3_bf16.page": scaled, "go_text_f8e4m3.page": text, "go_one_token.page": one,
		"go_f8e5m2.cores": sampleCores(F8E5M2), "go_bare_f32.cores": bare,
		"go_packed_f8e4m3.cores": packedCores(F8E4M3), "go_packed_bare_bf16.cores": packed,
	}
	// Of coded cores there are two files: the second has the keys and values that a reader must find, to the bit.
	for name, c := range map[string]*Cores{
		"go_coded4_bf16":       mustCode(realistic(BF16, 24, false, false), 4, frequenciesFor(24), false),
		"go_coded4_f16_whole":  mustCode(realistic(F16, 64, false, true), 4, frequenciesFor(48), true),
		"go_coded8_f32_packed": mustCode(realistic(F32, 12, true, false), 8, nil, false),
	} {
		plain := *c
		plain.Coded = nil
		all[name+".cores"], all[name+"_plain.cores"] = c, &plain
	}
	return all
}

func goldenFile(name string) string { return filepath.Join("testdata", name+".safetensors") }

func TestGoldenFiles(t *testing.T) {
	if *update {
		for name, v := range goGoldens() {
			if err := os.WriteFile(goldenFile(name), encode(t, v), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if python, reason := findPython(); reason == "" {
			runPython(t, python, "write", "testdata")
		} else {
			t.Logf("Python's golden files are left as they are: %s", reason)
		}
	}
	all := pythonGoldens()
	maps.Copy(all, goGoldens())
	for name, want := range all {
		t.Run(name, func(t *testing.T) {
			blob, err := os.ReadFile(goldenFile(name))
			if err != nil {
				t.Fatal(err)
			}
			var got appender
			if _, isPage := want.(*Page); isPage {
				got, err = Decode(blob, Limits{})
			} else {
				got, err = DecodeCores(blob, Limits{})
			}
			if err != nil {
				t.Fatalf("decode: %v", err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if !bytes.Equal(encode(t, want), blob) {
				t.Errorf("Append gives other bytes than the golden file")
			}
		})
	}
}

func TestGoldenFilesAreAllKnown(t *testing.T) {
	files, err := filepath.Glob(goldenFile("*"))
	if err != nil {
		t.Fatal(err)
	}
	all := pythonGoldens()
	maps.Copy(all, goGoldens())
	for name := range all {
		if !slices.Contains(files, goldenFile(name)) {
			t.Errorf("golden file %s is missing", name)
		}
	}
	if len(files) != len(all) {
		t.Errorf("got %d golden files, want %d", len(files), len(all))
	}
}

// Python's library writes the committed files still, byte for byte.
func TestPythonWritesTheGoldenFiles(t *testing.T) {
	python := needPython(t)
	dir := t.TempDir()
	runPython(t, python, "write", dir)
	for name := range pythonGoldens() {
		got, err := os.ReadFile(filepath.Join(dir, name+".safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(goldenFile(name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: Python writes other bytes than the golden file", name)
		}
	}
}

// Python's library finds in Go's blobs what Go put there.
func TestPythonReadsWhatGoWrites(t *testing.T) {
	python := needPython(t)
	type tensorInfo struct {
		DType  string `json:"dtype"`
		Shape  []int  `json:"shape"`
		SHA256 string `json:"sha256"`
	}
	type content struct {
		Metadata map[string]string     `json:"metadata"`
		Tensors  map[string]tensorInfo `json:"tensors"`
	}
	want, args, dir := map[string]content{}, []string{"read"}, t.TempDir()
	all := pythonGoldens()
	maps.Copy(all, goGoldens())
	for name, v := range all {
		blob := encode(t, v)
		file := filepath.Join(dir, name+".safetensors")
		if err := os.WriteFile(file, blob, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
		c, err := open(blob, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		info := content{Metadata: c.meta, Tensors: map[string]tensorInfo{}}
		for _, tn := range c.tensors {
			sum := sha256.Sum256(tn.data)
			info.Tensors[tn.name] = tensorInfo{tn.elem.name, tn.shape, hex.EncodeToString(sum[:])}
		}
		want[name+".safetensors"] = info
	}
	var got map[string]content
	if err := json.Unmarshal(runPython(t, python, args...), &got); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s: Python found %+v, want %+v", name, got[name], want[name])
		}
	}
}

// findPython is the interpreter that SEMPROXY_PYTHON names, or python3; reason says why it cannot serve.
func findPython() (python, reason string) {
	python = os.Getenv("SEMPROXY_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.Command(python, "-c", "import safetensors, numpy").CombinedOutput(); err != nil {
		return python, "no interpreter with safetensors and numpy: " + err.Error() + "\n" + string(out)
	}
	return python, ""
}

func needPython(t *testing.T) string {
	t.Helper()
	python, reason := findPython()
	if reason != "" {
		skipUnlessRequired(t, "python", reason)
	}
	return python
}

func runPython(t *testing.T, python string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(python, append([]string{filepath.Join("testdata", "make_golden.py")}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make_golden.py %v: %v\n%s", args, err, stderr.String())
	}
	return out
}
