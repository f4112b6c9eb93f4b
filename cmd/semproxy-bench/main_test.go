package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// programs is the folder of the programs built for the tests that need processes of their own.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "semproxy-bench-test-"); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", dir, ".", "../semproxy").CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	built = dir
	return dir, nil
})

// built is programs' folder, once there is one.
var built string

var updateReference = flag.Bool("update-reference", false, "write docs/reference/benchmarks.md again")

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built != "" {
			_ = os.RemoveAll(built)
		}
		os.Exit(code)
	}))
}

// cli runs the program in this process.
func cli(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	err = run(context.Background(), args, &out, &errs)
	return out.String(), err
}

func TestEveryCommandHelps(t *testing.T) {
	for _, args := range [][]string{{}, {"page"}, {"decode"}, {"plane"}, {"proxy"}, {"scale"}} {
		out, err := cli(t, append(args, "--help")...)
		if err != nil || !strings.Contains(out, "Usage:") || !strings.Contains(out, strings.Join(append([]string{"semproxy-bench"}, args...), " ")) {
			t.Errorf("semproxy-bench %s --help: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The manual's page of benchmarks is made of the commands.
func TestTheManualHasEveryBenchmark(t *testing.T) {
	const path = "../../docs/reference/benchmarks.md"
	var b bytes.Buffer
	b.WriteString("# Benchmarks\n\n<!-- written by `make generate`, from the commands themselves -->\n\n" +
		"`semproxy-bench` is a program of its own (`go build ./cmd/semproxy-bench`). What it has measured is in\n" +
		"[performance](../explanation/performance.md).\n")
	show.Reference(&b, newRoot(), pflag.NewFlagSet("", pflag.ContinueOnError))
	if *updateReference {
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old, b.Bytes()) {
		t.Errorf("%s is out of date: make generate writes it", path)
	}
}

func TestEveryBenchmarkKnowsTheThreeForms(t *testing.T) {
	for _, c := range newRoot().Commands() {
		if !c.Hidden && (c.Flags().ShorthandLookup("o") == nil || c.Flags().Lookup("json") == nil) {
			t.Errorf("%s: got no -o or --json", c.CommandPath())
		}
	}
}
