package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
)

// realNATS is the nats-server program of the version in go.mod, built beside the program under test.
var realNATS = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(program), "nats-server")
	out, err := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return path, nil
})

// natsProcess is a nats-server in a process of its own, which can be killed and started again.
type natsProcess struct {
	t       testing.TB
	args    []string
	address string
	cmd     *exec.Cmd
}

func startNATSProcess(t testing.TB, address string, args ...string) *natsProcess {
	t.Helper()
	if _, err := realNATS(); err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "nats") {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	p := &natsProcess{t: t, args: args, address: address}
	t.Cleanup(p.kill)
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// start runs the server and returns when it accepts connections.
func (p *natsProcess) start() error {
	path, err := realNATS()
	if err != nil {
		return err
	}
	p.cmd = exec.Command(path, p.args...)
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nats-server does not listen: %w", err)
		}
	}
}

// kill ends it with SIGKILL. Further calls do nothing.
func (p *natsProcess) kill() {
	if p.cmd != nil && p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// freePort is one that nobody listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// natsSystem is a NATS system made by "semproxy nats-config".
type natsSystem struct {
	t       testing.TB
	dir     string
	url     string
	ca      string
	private bool // one account
	nodes   []*natsProcess
	onlyNew func() // after rotate: takes the old key away
}

// configured writes a configuration with the program's own command and starts its servers.
func configured(t *testing.T, mode string, nodes int, extra ...string) *natsSystem {
	t.Helper()
	s := &natsSystem{t: t, dir: t.TempDir(), private: mode == "users"}
	servers, urls := make([]string, 0, nodes), make([]string, 0, nodes)
	for range nodes {
		port := freePort(t)
		servers = append(servers, fmt.Sprintf("127.0.0.1:%d:%d", port, freePort(t)))
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	s.url = strings.Join(urls, ",")
	args := append([]string{"nats-config", "--tenants", "acme,globex", "--mode", mode, "--out", s.dir, "--bind", "127.0.0.1",
		"--jetstream", filepath.Join(s.dir, "js"), "--servers", strings.Join(servers, ",")}, extra...)
	if out, err := cli(t, args...); err != nil {
		t.Fatalf("nats-config: %v\n%s", err, out)
	}
	for i := range nodes {
		file := "nats-server.conf"
		if nodes > 1 {
			file = fmt.Sprintf("nats-%d.conf", i)
		}
		s.nodes = append(s.nodes, startNATSProcess(t, strings.TrimPrefix(urls[i], "nats://"), "-c", filepath.Join(s.dir, file)))
	}
	return s
}

// options log in as a tenant, or as the sidecar with "SEMPROXY".
func (s *natsSystem) options(who string) transport.ConnectOptions {
	o := transport.ConnectOptions{NKeyFile: filepath.Join(s.dir, who+".nk"), CAFile: s.ca}
	if s.private && who != "SEMPROXY" {
		o.InboxPrefix = transport.InboxPrefix(who)
	}
	return o
}

func (s *natsSystem) connect(t testing.TB, who string) *nats.Conn {
	t.Helper()
	nc, err := transport.Connect(s.url, s.options(who))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func (s *natsSystem) client(t testing.TB, tenant string, opt client.Options) *client.Client {
	t.Helper()
	opt.Tenant, opt.TracerProvider = tenant, noop.NewTracerProvider()
	c, err := client.New(s.connect(t, tenant), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// authority signs certificates of servers on loopback.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.crt", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes a certificate for 127.0.0.1 and its key.
func (a *authority) issue() (cert, key string) { return a.issueTo("127.0.0.1", "tls") }

// issueTo does so under a common name, in files of that name.
func (a *authority) issueTo(common, file string) (cert, key string) {
	a.t.Helper()
	k := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: common}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &k.PublicKey, a.key)
	var private []byte
	if err == nil {
		private, err = x509.MarshalPKCS8PrivateKey(k)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(file+".crt", "CERTIFICATE", der), a.write(file+".key", "PRIVATE KEY", private)
}
