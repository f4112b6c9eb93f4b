package transport

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// statuses collects what OnStatus is told.
func statuses() (ConnectOptions, <-chan bool) {
	told := make(chan bool, 64)
	return ConnectOptions{Name: "test", Logger: quietLog(), OnStatus: func(up bool) { told <- up }}, told
}

func connect(t *testing.T, url string, opts ConnectOptions) *nats.Conn {
	t.Helper()
	nc, err := Connect(url, opts)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func writeSecret(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestASidecarThatStartsBeforeNATSServesOnceItIsThere(t *testing.T) {
	gone := startAndStop(t)
	opts, told := statuses()
	nc := connect(t, "nats://"+gone, opts)
	if nc.IsConnected() {
		t.Fatal("connected, want not yet")
	}
	s, err := New(Config{Conn: nc, Handler: handlerFunc(echo), Limiter: limiterFunc(unlimited), Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatalf("Start without NATS: %v", err)
	}
	defer func() { _ = s.Drain(within(t)) }()

	later := external(t, gone)
	for !<-told {
	}
	eventually(t, "the sidecar answers", func() bool {
		msg, err := later.Request("kv.acme.v1.compress", nil, patience)
		return err == nil && msg.Header.Get(HeaderStatus) == StatusOK
	})
}

// external starts a plain nats-server, without our permissions, at address and connects to it.
func external(t *testing.T, address string) *nats.Conn {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{Host: host, Port: n, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	nc, err := nats.Connect("nats://" + address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// startAndStop returns an address at which nothing listens any more.
func startAndStop(t *testing.T) string {
	t.Helper()
	e, err := Embedded(EmbeddedOptions{Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimPrefix(e.ClientURL(), "nats://")
	if err := e.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	return address
}

func TestTheConnectionComesBackAndSaysSo(t *testing.T) {
	address := startAndStop(t)
	first, err := Embedded(EmbeddedOptions{Listen: address, Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	opts, told := statuses()
	nc := connect(t, "nats://"+address, opts)
	if up := <-told; !up {
		t.Fatal("first status: got down, want up")
	}
	if err := first.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	if up := <-told; up || nc.IsConnected() {
		t.Fatal("after the server went: got up, want down")
	}
	startNATS(t, EmbeddedOptions{Listen: address})
	if up := <-told; !up || !nc.IsConnected() {
		t.Fatal("after it came back: got down, want up")
	}
}

func TestCredentialsAreReadAgainAtEveryAttempt(t *testing.T) {
	dir := t.TempDir()
	opts, told := statuses()
	opts.UserFile = writeSecret(t, filepath.Join(dir, "user"), "alice\n")
	opts.PasswordFile = writeSecret(t, filepath.Join(dir, "password"), "old\n")
	opts.InboxPrefix = InboxPrefix("acme")
	e := startNATS(t, EmbeddedOptions{Users: twoTenants})
	serve(t, e, handlerFunc(echo), func(c *Config) { c.PrivateInboxes = true })
	nc := connect(t, e.ClientURL(), opts)
	if nc.IsConnected() {
		t.Fatal("connected with the old password, want not")
	}
	writeSecret(t, opts.PasswordFile, "pw-a\n")
	for !<-told {
	}
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
}

func TestConnectErrorsShowNoCredentials(t *testing.T) {
	dir := t.TempDir()
	seed := writeSecret(t, filepath.Join(dir, "seed"), "SUSECRETSECRETSECRET")
	present := writeSecret(t, filepath.Join(dir, "present"), "hunter2")
	for name, row := range map[string]struct {
		url  string
		opts ConnectOptions
	}{
		"malformed address":      {"nats://user:hunter2@host:notaport", ConnectOptions{}},
		"control character":      {"nats://user:hunter2@ho\x00st", ConnectOptions{}},
		"empty among several":    {"nats://user:hunter2@a,,b", ConnectOptions{}},
		"malformed seed":         {"nats://127.0.0.1:1", ConnectOptions{NKeyFile: seed}},
		"file that is missing":   {"nats://u:hunter2@127.0.0.1:1", ConnectOptions{CredsFile: filepath.Join(dir, "none")}},
		"two ways to log in":     {"nats://127.0.0.1:1", ConnectOptions{TokenFile: present, CredsFile: present}},
		"user without password":  {"nats://127.0.0.1:1", ConnectOptions{UserFile: present}},
		"certificate, no key":    {"nats://127.0.0.1:1", ConnectOptions{CertFile: present}},
		"CA that is none":        {"nats://127.0.0.1:1", ConnectOptions{CAFile: present}},
		"key that is none":       {"nats://127.0.0.1:1", ConnectOptions{CertFile: present, KeyFile: present}},
		"unknown scheme":         {"gopher://u:hunter2@127.0.0.1:1/%zz", ConnectOptions{}},
		"no host":                {"nats://u:hunter2@:4222", ConnectOptions{}},
		"an escape that is none": {"nats://u:hunter2%zz@host", ConnectOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			row.opts.Logger = quietLog()
			nc, err := Connect(row.url, row.opts)
			if err == nil {
				nc.Close()
				t.Fatal("got nil, want an error")
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "SUSECRET") {
				t.Errorf("got %v, want no credentials in it", err)
			}
		})
	}
}
