package helm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/fieldpath"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// running is a container of a pod as a process of this machine: the program in a root of its own with the pod's volumes, as the pod's
// user, with exactly the pod's arguments and environment. Files, fields and variables are made by the kubelet's own code. What it
// shares with the machine is the network, so listeners must be on ports of the test's.
type running struct {
	pod  *corev1.Pod
	spec *corev1.Container
	root string
	log  *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// runContainer starts the container for the length of the test. extra is environment that the pod does not have.
func runContainer(t *testing.T, pod *corev1.Pod, name string, extra ...string) (*running, *exec.Cmd) {
	t.Helper()
	c := &running{pod: pod, spec: container(t, &pod.Spec, name), root: t.TempDir(), log: &logBuffer{}}
	c.mount(t)
	program, err := os.ReadFile(semproxy)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "usr/bin/semproxy", program, 0o755)

	cmd := exec.Command("/usr/bin/semproxy", c.spec.Args...)
	cmd.Dir, cmd.Env = "/", append(c.environment(t), extra...)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.SysProcAttr = c.isolation(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("%s:\n%s", name, c.log)
		}
	})
	return c, cmd
}

// isolation gives the process the container's root and user; without the superuser's rights by a user namespace.
func (c *running) isolation(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	sc := c.spec.SecurityContext
	if sc == nil || sc.RunAsUser == nil || sc.RunAsGroup == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
		t.Fatalf("the container has no user, or may write its root: %+v", sc)
	}
	attr := &syscall.SysProcAttr{Chroot: c.root, Pdeathsig: syscall.SIGKILL}
	user, group := int(*sc.RunAsUser), int(*sc.RunAsGroup)
	if os.Getuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: uint32(user), Gid: uint32(group)}
		return attr
	}
	attr.Cloneflags = syscall.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: user, HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: group, HostID: os.Getgid(), Size: 1}}
	return attr
}

func (c *running) write(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	file := filepath.Join(c.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, mode); err != nil {
		t.Fatal(err)
	}
}

// mount fills the volumes, or fills them again as the kubelet does when a ConfigMap has changed: by swapping a symbolic link.
func (c *running) mount(t *testing.T) {
	t.Helper()
	for _, m := range c.spec.VolumeMounts {
		dir := filepath.Join(c.root, m.MountPath)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		v := c.volume(t, m.Name)
		switch {
		case v.ConfigMap != nil:
			cm, err := k.Client.CoreV1().ConfigMaps(c.pod.Namespace).Get(t.Context(), v.ConfigMap.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]volumeutil.FileProjection{}
			for name, data := range cm.Data {
				files[name] = volumeutil.FileProjection{Data: []byte(data), Mode: 0o644}
			}
			project(t, dir, files)
		case v.Secret != nil:
			secret, err := k.Client.CoreV1().Secrets(c.pod.Namespace).Get(t.Context(), v.Secret.SecretName, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]volumeutil.FileProjection{}
			for name, data := range secret.Data {
				files[name] = volumeutil.FileProjection{Data: data, Mode: 0o644}
			}
			project(t, dir, files)
		case v.EmptyDir != nil:
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("volume %s is no ConfigMap, Secret or emptyDir:\n%s", m.Name, text(t, v))
		}
	}
}

// project writes the files of a ConfigMap or Secret as the kubelet does.
func project(t *testing.T, dir string, files map[string]volumeutil.FileProjection) {
	t.Helper()
	w, err := volumeutil.NewAtomicWriter(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(files, nil); err != nil {
		t.Fatal(err)
	}
}

func (c *running) volume(t *testing.T, name string) *corev1.Volume {
	t.Helper()
	for i := range c.pod.Spec.Volumes {
		if c.pod.Spec.Volumes[i].Name == name {
			return &c.pod.Spec.Volumes[i]
		}
	}
	t.Fatalf("the pod has no volume %s", name)
	return nil
}

// environment is what the kubelet would set.
func (c *running) environment(t *testing.T) []string {
	t.Helper()
	known := map[string]string{}
	var env []string
	for _, e := range c.spec.Env {
		value := expansion.Expand(e.Value, expansion.MappingFuncFor(known))
		if e.ValueFrom != nil {
			if e.ValueFrom.FieldRef == nil {
				t.Fatalf("variable %s is of no kind that this test knows:\n%s", e.Name, text(t, e))
			}
			var err error
			if value, err = fieldpath.ExtractFieldPathAsString(c.pod, e.ValueFrom.FieldRef.FieldPath); err != nil {
				t.Fatal(err)
			}
		}
		known[e.Name] = value
		env = append(env, e.Name+"="+value)
	}
	return env
}

// succeeds waits until a probe of the pod succeeds, asking as often as it says.
func (c *running) succeeds(t *testing.T, what string, p *corev1.Probe) {
	t.Helper()
	until(t, what+" succeeds", func() error {
		_, err := c.get(t, p.HTTPGet.Port, p.HTTPGet.Path)
		return err
	})
}

// get asks a port of the container, by name or number.
func (c *running) get(t *testing.T, port intstr.IntOrString, path string) (string, error) {
	t.Helper()
	number := port.IntVal
	for _, p := range c.spec.Ports {
		if p.Name == port.StrVal {
			number = p.ContainerPort
		}
	}
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", number, path), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, res.StatusCode, body)
	}
	return string(body), err
}

// freePorts are ports that nobody listens on.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	taken := make([]net.Listener, n) // all are closed at the end, so that they differ
	for i := range ports {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		taken[i], ports[i] = l, l.Addr().(*net.TCPAddr).Port
	}
	for _, l := range taken {
		_ = l.Close()
	}
	return ports
}
