//go:build linux && amd64 && !nogpu

package gpu_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/gpu/fake"
)

// The kernels touch nothing beyond their arrays: the tests run once more in a process of their own, with a driver that is built
// with the address sanitizer and told where every array ends.
func TestKernelsStayInsideTheirArrays(t *testing.T) {
	if raced {
		return // both sanitizers want the same memory; the plain run has this test
	}
	fake.Library(t, "-fsanitize=address", "-g1")
	preload, err := exec.Command("g++", "-print-file-name=libasan.so").Output()
	if err != nil {
		t.Fatal(err)
	}
	run := func(env ...string) (string, error) {
		cmd := exec.Command(os.Args[0], "-test.run", "^(TestRandomPagesOfEveryShape|TestEdgesOfAPage|TestAttentionIsTheCPUs|TestDecodeIsProportionalAttention)$")
		cmd.Env = append(os.Environ(), "SEMPROXY_TEST_CUDA_FLAGS=-fsanitize=address -g1", "SEMPROXY_TEST_FENCED=1",
			"LD_PRELOAD="+strings.TrimSpace(string(preload)), "ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_abort=0")
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err != nil {
		t.Errorf("%v:\n%.6000s", err, out)
	}
	// And it would say so: with one array too short it does.
	if out, err := run("SEMPROXY_TEST_FENCED=short"); err == nil || !strings.Contains(out, "AddressSanitizer") {
		t.Errorf("an array that ends too early was not noticed: %v\n%.2000s", err, out)
	}
}

// fenced tells the sanitizer of the arrays, in the process of the test above. With "short" every large array seems 64 bytes
// shorter than it is.
func fenced(t testing.TB, path string) {
	kind := os.Getenv("SEMPROXY_TEST_FENCED")
	if kind == "" || path == "" {
		return
	}
	control := fake.Controls(t, path)
	gpu.Fence(func(at, n, taken uintptr) {
		if kind == "short" && n > 1000 {
			n -= 64
		}
		control.Fence(at, n, taken)
	})
}
