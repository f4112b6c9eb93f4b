package forward_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The openai package and huggingface_hub's client work unchanged, with only the base URL replaced.
func TestPublicClients(t *testing.T) {
	python := findPython(t)
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	cmd := exec.CommandContext(t.Context(), python, "testdata/clients.py", s.URL(), acmeKey, poorKey)
	cmd.Env = append(os.Environ(), "NO_PROXY=*", "HF_HUB_OFFLINE=0", "HF_HUB_DISABLE_TELEMETRY=1", "HF_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\nthe proxy said:\n%s", err, out, s.log)
	}
	if n := strings.Count(string(out), "ok "); n < 17 {
		t.Errorf("got %d checks, want all\n%s", n, out)
	}
	for _, r := range e.requests() {
		if strings.Contains(r.body, "globex") {
			t.Errorf("the client's own parameters reached the engine: %s", r.body)
		}
	}
}

func findPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("SEMPROXY_PYTHON")
	if python == "" {
		python = "python3"
	}
	err := exec.CommandContext(t.Context(), python, "-c", "import openai, huggingface_hub").Run()
	if err == nil {
		return python
	}
	if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "python") {
		t.Fatalf("SEMPROXY_TEST_REQUIRE names python, but %s cannot import openai and huggingface_hub: %v", python, err)
	}
	t.Skip("needs Python with openai and huggingface_hub; SEMPROXY_PYTHON names the interpreter")
	return ""
}
