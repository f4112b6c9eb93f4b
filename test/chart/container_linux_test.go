package chart

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// container is a container of a rendered pod that runs as a process: its root folder has what the pod's volumes have, as the kubelet
// lays it there, and the binary; its arguments, environment and user are the rendered ones.
type container struct {
	spec corev1.Container
	root string
	log  *safeBuffer
}

// safeBuffer is written by the process and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs the pod's first init container until the test ends; then it wants that SIGTERM ends it well.
func start(t *testing.T, pod corev1.PodSpec, manifests []object) *container {
	t.Helper()
	return startIn(t, t.TempDir(), 0, pod, manifests)
}

// startIn does it with another init container, in a root folder that may be another's: what both mount they share.
func startIn(t *testing.T, root string, which int, pod corev1.PodSpec, manifests []object) *container {
	t.Helper()
	c := &container{spec: pod.InitContainers[which], root: root, log: new(safeBuffer)}
	for _, m := range c.spec.VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s is mounted with subPath, which is never updated", m.MountPath)
		}
		c.mount(t, pod.Volumes, m, manifests)
	}
	program, err := os.ReadFile(binary(t, "semproxy-static"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.root, "semproxy")); err != nil {
		if err := os.WriteFile(filepath.Join(c.root, "semproxy"), program, 0o755); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/semproxy")
	cmd.Args = append(cmd.Args, c.spec.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", c.environment(t), c.log, c.log
	cmd.SysProcAttr = c.user()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("the sidecar ended with %v; it wrote\n%s", err, c.log)
		}
	})
	return c
}

// user is the rendered user in the root folder; without the rights for that, the caller in a namespace of its own.
func (c *container) user() *syscall.SysProcAttr {
	s := c.spec.SecurityContext
	uid, gid := int(*s.RunAsUser), int(*s.RunAsGroup)
	if os.Getuid() == 0 {
		return &syscall.SysProcAttr{Chroot: c.root, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}} //nolint:gosec // small
	}
	return &syscall.SysProcAttr{
		Chroot: c.root, Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: gid, HostID: os.Getgid(), Size: 1}},
	}
}

func (c *container) environment(t *testing.T) []string {
	t.Helper()
	var env, pairs []string
	fields := map[string]string{"metadata.name": "demo-0", "metadata.namespace": "llm"}
	for _, e := range c.spec.Env {
		value := e.Value
		if e.ValueFrom != nil {
			known := false
			if value, known = fields[e.ValueFrom.FieldRef.FieldPath]; !known {
				t.Fatalf("%s: where does it come from?", e.Name)
			}
		}
		value = strings.NewReplacer(pairs...).Replace(value)
		pairs = append(pairs, "$("+e.Name+")", value)
		env = append(env, e.Name+"="+value)
	}
	return env
}

func (c *container) mount(t *testing.T, volumes []corev1.Volume, m corev1.VolumeMount, manifests []object) {
	t.Helper()
	dir := filepath.Join(c.root, m.MountPath)
	for _, v := range volumes {
		switch {
		case v.Name != m.Name:
			continue
		case v.ConfigMap != nil:
			c.project(t, dir, find(t, manifests, "ConfigMap", v.ConfigMap.Name))
		case v.EmptyDir != nil:
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // as the kubelet does
				t.Fatal(err)
			}
		default:
			t.Fatalf("volume %s: of which kind is it?", v.Name)
		}
		return
	}
	t.Fatalf("%s: the pod has no volume %s", m.MountPath, m.Name)
}

// project lays a ConfigMap's files as the kubelet does: into a new folder, to which the link ..data is swapped.
func (c *container) project(t *testing.T, dir string, configMap object) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(fresh, 0o755); err != nil { //nolint:gosec // as the kubelet does
		t.Fatal(err)
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	data, _ := at(configMap, "data").(object)
	for name, text := range data {
		if err := os.WriteFile(filepath.Join(fresh, name), []byte(text.(string)), 0o644); err != nil { //nolint:gosec // as the kubelet does
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	swap := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(fresh), swap); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(swap, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
			t.Fatal(err)
		}
	}
}

// url is that of a rendered port, by number or name.
func (c *container) url(t *testing.T, port intstr.IntOrString) string {
	t.Helper()
	for _, p := range c.spec.Ports {
		if p.Name == port.StrVal || p.ContainerPort == port.IntVal {
			return fmt.Sprintf("http://127.0.0.1:%d", p.ContainerPort)
		}
	}
	t.Fatalf("the container has no port %v", port)
	return ""
}

// probe asks as often as the probe says, until it has succeeded or failed.
func (c *container) probe(t *testing.T, what string, p *corev1.Probe) {
	t.Helper()
	client := http.Client{Timeout: time.Duration(p.TimeoutSeconds) * time.Second}
	again := time.NewTicker(time.Duration(p.PeriodSeconds) * time.Second)
	defer again.Stop()
	var last string
	for range p.FailureThreshold {
		if resp, err := client.Get(c.url(t, p.HTTPGet.Port) + p.HTTPGet.Path); err != nil {
			last = err.Error()
		} else {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode >= 200 && resp.StatusCode < 400 {
				return
			}
			last = resp.Status + " " + string(body)
		}
		<-again.C
	}
	t.Fatalf("the %s probe fails: %s; the sidecar wrote\n%s", what, last, c.log)
}

// freePorts are ports of the loopback that nobody listens on.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	var all []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range all {
		_ = l.Close()
	}
	return ports
}
