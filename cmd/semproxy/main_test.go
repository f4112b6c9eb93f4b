package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
)

// program is the program built for the tests that need a process of its own.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "semproxy-test-")
	if err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "semproxy")
	if out, err := exec.Command("go", "build", "-tags", tags(), "-o", program, ".").CombinedOutput(); err != nil {
		panic(string(out))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// tags are the build tags of this test, so that the program has the same kernels: others may round differently.
func tags() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		panic("the test binary does not say how it was built")
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" {
			return s.Value
		}
	}
	return ""
}

// cli runs the program in this process.
func cli(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = run(context.Background(), args, &out, &errs)
	return out.String(), err
}

func TestBadConfigurationEndsTheProcessWithTheReason(t *testing.T) {
	file := filepath.Join(t.TempDir(), "semproxy.yaml")
	if err := os.WriteFile(file, []byte("nats:\n  ulr: nats://x\nadmin: { listen: nowhere }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config", file)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exit.Refused {
		t.Fatalf("exit code %d (%v), want that of something refused", cmd.ProcessState.ExitCode(), err)
	}
	for _, want := range []string{"semproxy.yaml:2", "ulr", "semproxy.yaml:3", "admin.listen"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "goroutine") {
		t.Errorf("the output is a stack trace:\n%s", out)
	}
}

func TestEveryCommandHelps(t *testing.T) {
	for _, args := range [][]string{{}, {"serve"}, {"demo"}, {"compress"}, {"eval"}, {"policy"}, {"policy", "check"}, {"policy", "explain"},
		{"policy", "schema"}, {"keys"}, {"keys", "new"}, {"keys", "hash"}, {"config"}, {"config", "print"}, {"version"},
		{"jobs"}, {"jobs", "list"}, {"jobs", "letters"}, {"jobs", "replay"}, {"jobs", "drop"}, {"nats-config"}, {"prove"}, {"inject"}} {
		out, err := cli(t, append(args, "--help")...)
		if err != nil || !strings.Contains(out, "Usage:") || !strings.Contains(out, strings.Join(append([]string{"semproxy"}, args...), " ")) {
			t.Errorf("semproxy %s --help: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestVersionAndConfigPrint(t *testing.T) {
	out, err := cli(t, "version")
	if err != nil || !strings.HasPrefix(out, "semproxy ") {
		t.Errorf("version: %q, %v", out, err)
	}
	out, err = cli(t, "config", "print", "--limits-workers", "3")
	if err != nil || !strings.Contains(out, "workers: 3") || !strings.Contains(out, "--limits-workers") {
		t.Errorf("config print: %v\n%s", err, out)
	}
}
