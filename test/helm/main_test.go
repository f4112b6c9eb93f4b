package helm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/semproxy/semproxy/test/helm/controlplane"
)

// k is the control plane of all tests, which run one after another; nil where its programs are not built.
var k *controlplane.Cluster

// programs is their folder, and semproxy the program of this tree, built as its plain image has it.
var programs, semproxy string

func TestMain(m *testing.M) {
	// The clients' connections outlive what they were used for.
	goleak.VerifyTestMain(main{m}, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"))
}

// main runs the tests between start and end of the control plane.
type main struct{ m *testing.M }

func (m main) Run() int {
	dir, err := os.MkdirTemp("", "semproxy-test-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs, err = controlplane.Find(".")
	if errors.Is(err, controlplane.ErrNotBuilt) && !required() {
		return m.m.Run() // every test skips
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	semproxy = filepath.Join(dir, "semproxy")
	build := exec.Command("go", "build", "-tags", "nogpu", "-o", semproxy, "./cmd/semproxy")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build semproxy: %v\n%s", err, out)
		return 1
	}
	if k, err = controlplane.Start(context.Background(), programs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer k.Stop()
	return m.m.Run()
}

func required() bool {
	return slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "controlplane")
}

// need skips a test where there is no control plane. With SEMPROXY_TEST_REQUIRE=controlplane the tests do not even start.
func need(t *testing.T) {
	t.Helper()
	if k == nil {
		t.Skip(controlplane.ErrNotBuilt)
	}
}
