package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	lease "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
)

// Cluster is a running control plane with one node. Its fields are read only.
type Cluster struct {
	Kubeconfig string // file, of somebody who may do everything
	Client     kubernetes.Interface
	Dynamic    dynamic.Interface
	Rest       *rest.Config

	bin, dir  string
	server    string // https://127.0.0.1:port
	tokens    map[string]string
	processes []*process
}

// Node is the name of the cluster's node.
const Node = "node-0"

// Who speaks to the API server, with the groups that it gives them. The controllers and the scheduler have their own roles only.
var identities = []struct{ user, group string }{
	{"admin", "system:masters"},
	{"kwok", "system:masters"},
	{"system:kube-controller-manager", "system:authenticated"},
	{"system:kube-scheduler", "system:authenticated"},
}

// stages are how kwok takes nodes and pods through their lives: at once.
var stages = []string{nodefast.DefaultNodeInit, lease.DefaultNodeHeartbeatWithLease, podfast.DefaultPodReady, podfast.DefaultPodComplete, podfast.DefaultPodDelete}

// Start runs the programs in bin (see [Find]) and waits until a node is ready. On an error nothing is left running.
func Start(ctx context.Context, bin string) (c *Cluster, err error) {
	dir, err := os.MkdirTemp("", "semproxy-k8s-") // short: a Unix socket lies in it
	if err != nil {
		return nil, err
	}
	c = &Cluster{bin: bin, dir: dir, Kubeconfig: filepath.Join(dir, "admin.kubeconfig"), tokens: map[string]string{}}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	if err := writeKeys(dir); err != nil {
		return nil, err
	}
	var lines []string
	for _, id := range identities {
		c.tokens[id.user] = rand.Text()
		lines = append(lines, fmt.Sprintf("%s,%s,%s,%q", c.tokens[id.user], id.user, id.user, id.group))
	}
	if err := os.WriteFile(c.file("tokens.csv"), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.file("stages.yaml"), []byte(strings.Join(stages, "\n---\n")), 0o600); err != nil {
		return nil, err
	}
	if err := c.run("etcd", "--name", "test", "--data-dir", "etcd", "--unsafe-no-fsync",
		"--listen-client-urls", "unix://"+c.file("etcd.sock"), "--advertise-client-urls", "unix://"+c.file("etcd.sock"),
		"--listen-peer-urls", "unix://"+c.file("peer.sock"), "--initial-advertise-peer-urls", "unix://"+c.file("peer.sock"),
		"--initial-cluster", "test=unix://"+c.file("peer.sock")); err != nil {
		return nil, err
	}
	if err := c.serve(ctx); err != nil {
		return nil, err
	}
	for _, id := range identities {
		if err := c.writeKubeconfig(id.user); err != nil {
			return nil, err
		}
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	for _, p := range [][]string{
		{"kube-controller-manager", "--kubeconfig", c.file("system:kube-controller-manager.kubeconfig"), "--leader-elect=false", "--secure-port=0",
			"--use-service-account-credentials", "--service-account-private-key-file", c.file("accounts.key"), "--root-ca-file", c.file("ca.crt")},
		{"kube-scheduler", "--kubeconfig", c.file("system:kube-scheduler.kubeconfig"), "--leader-elect=false", "--secure-port=0"},
		{"kwok", "--kubeconfig", c.file("kwok.kubeconfig"), "--config", c.file("stages.yaml"), "--manage-all-nodes", "--node-lease-duration-seconds=40"},
	} {
		if err := c.run(p[0], p[1:]...); err != nil {
			return nil, err
		}
	}
	return c, c.addNode(ctx)
}

// Stop ends everything, the API server before etcd, and removes the files.
func (c *Cluster) Stop() {
	for _, p := range slices.Backward(c.processes) {
		p.stop()
	}
	_ = os.RemoveAll(c.dir)
}

// Logs is the end of every program's log.
func (c *Cluster) Logs() string {
	var b strings.Builder
	for _, p := range c.processes {
		fmt.Fprintf(&b, "== %s\n%s\n", p.name, p.tail())
	}
	return b.String()
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

func (c *Cluster) run(name string, args ...string) error {
	p, err := start(c.bin, c.dir, name, args...)
	if err == nil {
		c.processes = append(c.processes, p)
	}
	return err
}

// serve starts the API server. The port is one that was free a moment ago; another is taken where it no longer is.
func (c *Cluster) serve(ctx context.Context) error {
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		c.server = fmt.Sprintf("https://127.0.0.1:%d", port)
		if err := c.run("kube-apiserver", "--etcd-servers", "unix://"+c.file("etcd.sock"), "--bind-address", "127.0.0.1",
			"--secure-port", fmt.Sprint(port), "--tls-cert-file", c.file("server.crt"), "--tls-private-key-file", c.file("server.key"),
			"--token-auth-file", c.file("tokens.csv"), "--authorization-mode", "RBAC", "--endpoint-reconciler-type", "none",
			"--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://kubernetes.default.svc",
			"--service-account-key-file", c.file("accounts.key"), "--service-account-signing-key-file", c.file("accounts.key"),
			"--shutdown-delay-duration", "0s", "--profiling=false"); err != nil {
			return err
		}
		server := c.processes[len(c.processes)-1]
		err = c.await(ctx, "the API server is ready", func() (bool, error) {
			if err := server.ended(); err != nil {
				return false, err
			}
			return c.probe(ctx), nil
		})
		if err == nil || try == 3 || !strings.Contains(server.tail(), "address already in use") {
			return err
		}
		c.processes = c.processes[:len(c.processes)-1]
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// probe asks the API server whether it is ready.
func (c *Cluster) probe(ctx context.Context) bool {
	if err := c.writeKubeconfig("admin"); err != nil {
		return false
	}
	if err := c.connect(); err != nil {
		return false
	}
	_, err := c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

func (c *Cluster) writeKubeconfig(user string) error {
	k := clientcmdapi.NewConfig()
	k.Clusters["test"] = &clientcmdapi.Cluster{Server: c.server, CertificateAuthority: c.file("ca.crt")}
	k.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: c.tokens[user]}
	k.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	k.CurrentContext = "test"
	return clientcmd.WriteToFile(*k, c.file(user+".kubeconfig"))
}

func (c *Cluster) connect() (err error) {
	if c.Rest, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	c.Rest.QPS, c.Rest.Burst = -1, -1
	if c.Client, err = kubernetes.NewForConfig(c.Rest); err != nil {
		return err
	}
	c.Dynamic, err = dynamic.NewForConfig(c.Rest)
	return err
}

// addNode registers the node that kwok plays, and waits until pods can be placed on it.
func (c *Cluster) addNode(ctx context.Context) error {
	room := corev1.ResourceList{"cpu": resource.MustParse("64"), "memory": resource.MustParse("512Gi"), "pods": resource.MustParse("200"),
		"ephemeral-storage": resource.MustParse("1Ti")}
	_, err := c.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: Node, Labels: map[string]string{"kubernetes.io/hostname": Node}},
		Status:     corev1.NodeStatus{Allocatable: room, Capacity: room},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return c.await(ctx, "the node is ready and the default service account is there", func() (bool, error) {
		for _, p := range c.processes {
			if err := p.ended(); err != nil {
				return false, err
			}
		}
		node, err := c.Client.CoreV1().Nodes().Get(ctx, Node, metav1.GetOptions{})
		if err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		ready := slices.ContainsFunc(node.Status.Conditions, func(n corev1.NodeCondition) bool {
			return n.Type == corev1.NodeReady && n.Status == corev1.ConditionTrue
		})
		_, err = c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return ready && len(node.Spec.Taints) == 0 && err == nil, nil
	})
}

// await looks until ok says true or an error; two minutes at most.
func (c *Cluster) await(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := ok(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("until %s: %w\n%s", what, errors.Join(context.Cause(ctx)), c.Logs())
		case <-tick.C:
		}
	}
}
