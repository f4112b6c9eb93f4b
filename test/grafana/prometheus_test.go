package grafana

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scrape is how often Prometheus looks.
const scrape = time.Second

// need finds a program, and skips the test without it unless it is required.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), program) {
		t.Fatalf("SEMPROXY_TEST_REQUIRE names %s: %v", program, err)
	}
	t.Skip("needs ", program)
	return ""
}

type server struct{ url string }

func startPrometheus(t *testing.T, program, target string) *server {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	write(t, config, fmt.Sprintf("global: { scrape_interval: %s, scrape_timeout: %s }\nscrape_configs:\n  - job_name: semproxy\n    static_configs: [ { targets: [ %q ], labels: { namespace: llm, pod: vllm-0 } } ]\n", scrape, scrape, target))
	listen := "127.0.0.1:" + port(t)
	run(t, filepath.Join(dir, "prometheus.log"), program, "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", listen)
	s := &server{"http://" + listen}
	await(t, "Prometheus", s.url+"/-/ready")
	return s
}

// query is the number of series that an expression gives now, those that are no number left out.
func (s *server) query(t *testing.T, expr string) int {
	t.Helper()
	res, err := http.PostForm(s.url+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v %+v", expr, err, answer)
	}
	n := 0
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" {
			n++
		}
	}
	return n
}

// run starts a program that ends with the test; its output is shown when the test fails.
func run(t *testing.T, log, program string, args ...string) {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it ends by the signal below, so that it stops in order
	cmd.Stdout, cmd.Stderr = out, out
	for _, e := range os.Environ() { // the program refuses variables that it does not know
		if !strings.HasPrefix(e, "SEMPROXY_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = out.Close()
		if text, _ := os.ReadFile(log); t.Failed() { //nolint:errcheck // what there is
			t.Logf("%s:\n%s", filepath.Base(program), text[max(0, len(text)-4000):])
		}
	})
}

func await(t *testing.T, what, url string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if res, err := http.Get(url); err == nil { //nolint:gosec,noctx // the test's own
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	t.Fatalf("%s is not ready after a minute", what)
}
