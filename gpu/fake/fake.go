//go:build linux && (amd64 || arm64) && !nogpu

package fake

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Need is the name by which SEMPROXY_TEST_REQUIRE demands the fake driver.
const Need = "fakecuda"

// Required reports whether SEMPROXY_TEST_REQUIRE names need.
func Required(need string) bool {
	return slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), need)
}

// Library builds the driver and returns its path. Where there is no g++ the test is skipped, unless it is required. flags, and
// those of SEMPROXY_TEST_CUDA_FLAGS, are given to the compiler as well.
func Library(t testing.TB, flags ...string) string {
	t.Helper()
	if extra := os.Getenv("SEMPROXY_TEST_CUDA_FLAGS"); extra != "" {
		flags = append(flags, strings.Fields(extra)...)
	}
	path, err := Build(flags...)
	if err == nil {
		return path
	}
	if _, missing := exec.LookPath("g++"); missing != nil && !Required(Need) {
		t.Skip("needs g++")
	}
	t.Fatal(err)
	return ""
}

// Build compiles the driver, unless the same sources have been compiled with the same flags before.
func Build(flags ...string) (string, error) {
	_, here, _, _ := runtime.Caller(0)
	src := filepath.Join(filepath.Dir(here), "src")
	hash := sha256.New()
	for _, dir := range []string{src, filepath.Join(src, "..", "..", "kernels")} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".ptx") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return "", err
			}
			fmt.Fprintln(hash, e.Name(), len(text))
			hash.Write(text)
		}
	}
	args := []string{"-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"}
	if runtime.GOARCH == "amd64" {
		args = append(args, "-mfma")
	}
	args = append(append(args, "-I", src), flags...)
	fmt.Fprintln(hash, args)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("semproxy-fakecuda-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, hex.EncodeToString(hash.Sum(nil)[:12])+".so")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	work, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	out := filepath.Join(work, "libcuda.so.1")
	args = append(args, "-o", out, filepath.Join(src, "machine.cc"), filepath.Join(src, "driver.cc"), filepath.Join(src, "kernels.cc"))
	if text, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the fake driver: %w\n%s", err, text)
	}
	return path, os.Rename(out, path) // whole or not at all
}

// Control steers a driver that is loaded.
type Control struct{ fault, seed, stat, revive, fence uintptr }

// Controls finds the control functions of the driver at path.
func Controls(t testing.TB, path string) *Control {
	t.Helper()
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatal(err)
	}
	c := new(Control)
	for name, to := range map[string]*uintptr{
		"fakecuda_fault": &c.fault, "fakecuda_seed": &c.seed, "fakecuda_stat": &c.stat, "fakecuda_revive": &c.revive,
		"fakecuda_fence": &c.fence,
	} {
		if *to, err = purego.Dlsym(lib, name); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// Fault makes calls of a kind fail: after that many successes, that many times, 0 for ever. Kinds: init, driver (too old),
// old (capability), alloc, hostalloc, copy, launch, kernel (fails while it runs), module, lost (every call from then on), and
// dead (a lost device does not come back).
func (c *Control) Fault(kind string, after, times int) {
	text := append([]byte(kind), 0)
	purego.SyscallN(c.fault, uintptr(unsafe.Pointer(&text[0])), uintptr(after), uintptr(times))
	runtime.KeepAlive(text)
}

// Heal ends every fault. A lost context stays lost until it is reset.
func (c *Control) Heal() { purego.SyscallN(c.revive) }

// Seed makes the order of threads and streams random; 0: in order.
func (c *Control) Seed(seed uint64) { purego.SyscallN(c.seed, uintptr(seed)) }

// Fence tells the address sanitizer, in a driver built with it, that an array of n bytes lies at an address, and that what
// follows it of taken bytes is nobody's.
func (c *Control) Fence(at, n, taken uintptr) { purego.SyscallN(c.fence, at, n, taken) }

// Stat is a number that the driver keeps.
type Stat int

// What a driver keeps count of.
const (
	DeviceBytes Stat = iota
	HostBytes
	Streams
	Events
	Modules
	Launches
	Violations // calls that a real driver would refuse, or that would crash it
	Contexts
	MostDeviceBytes
)

// Stat reads a number.
func (c *Control) Stat(s Stat) int {
	r, _, _ := purego.SyscallN(c.stat, uintptr(s))
	return int(r)
}
