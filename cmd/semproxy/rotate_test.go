package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
)

// rotate gives the sidecars another key: in the server's configuration beside the old one, then in the seed's file, then
// without the old one.
func (s *natsSystem) rotate(t *testing.T) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(s.dir, "nats-server.conf")
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	sidecars := regexp.MustCompile(`(SEMPROXY \{\s*jetstream: enabled\s*users: \[) (\{ nkey: \w+ \}) \]`)
	both := sidecars.ReplaceAllString(string(text), "$1 $2, { nkey: "+public+" } ]")
	if both == string(text) {
		t.Fatal("the configuration has no sidecars' user where it was expected")
	}
	replaceFile(t, conf, both)
	s.reload(t)
	replaceFile(t, filepath.Join(s.dir, "SEMPROXY.nk"), string(seed)+"\n")
	s.onlyNew = func() {
		replaceFile(t, conf, sidecars.ReplaceAllString(string(text), "$1 { nkey: "+public+" } ]"))
		s.reload(t)
	}
}

func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func (s *natsSystem) reload(t *testing.T) {
	t.Helper()
	for _, n := range s.nodes {
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARotatedKeyIsTakenUpWithoutLosingPages(t *testing.T) {
	system := configured(t, "accounts", 1)
	p := startProcess(t, "--nats-url", system.url, "--nats-nkey-file", filepath.Join(system.dir, "SEMPROXY.nk"), "--policy-path", demoPolicy)
	patient := client.Options{MaxAttempts: 300, Backoff: client.Backoff{First: 10 * time.Millisecond, Max: 100 * time.Millisecond}}
	if _, err := system.client(t, "acme", patient).Stat(context.Background()); err != nil {
		t.Fatal(err)
	}
	pages := sidecartest.Distinct(t, 8)
	var answered, slow atomic.Int64
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 3 {
		c := system.client(t, "acme", patient)
		senders.Go(func() {
			for i := 0; ; i = (i + 1) % len(pages) {
				select {
				case <-stop:
					return
				default:
				}
				reply, err := c.Compress(context.Background(), pages[i])
				if err == nil {
					err = sidecartest.About(reply.Body, fmt.Sprint("page-", i))
				}
				if err != nil {
					t.Errorf("page %d: %v", i, err)
					return
				}
				answered.Add(1)
				if reply.Duration > 10*time.Second {
					slow.Add(1)
				}
			}
		})
	}
	system.rotate(t)
	sidecartest.Until(t, "the new key is applied", func() bool { return strings.Contains(p.log.String(), "nats_credentials_applied") })
	system.onlyNew()
	before := answered.Load()
	sidecartest.Until(t, "pages are answered with the new key alone", func() bool { return answered.Load() > before+50 })

	// A file with a mistake changes nothing.
	replaceFile(t, filepath.Join(system.dir, "SEMPROXY.nk"), "not a seed\n")
	sidecartest.Until(t, "the mistake is reported", func() bool { return strings.Contains(p.log.String(), "nats_credentials_rejected") })
	before = answered.Load()
	sidecartest.Until(t, "pages are answered in spite of the mistake", func() bool { return answered.Load() > before+50 })
	close(stop)
	senders.Wait()
	if slow.Load() > 0 {
		t.Errorf("%d pages waited for more than 10 s", slow.Load())
	}
	if text := p.log.String(); strings.Contains(text, "SU") && regexp.MustCompile(`SU[A-Z2-7]{56}`).MatchString(text) {
		t.Error("a seed is in the log")
	}
	t.Logf("%d pages answered around two changes of the key", answered.Load())
}

func TestReadinessFollowsNATS(t *testing.T) {
	port := freePort(t)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	n := startNATSProcess(t, address, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-js", "-sd", t.TempDir())
	s := sidecartest.Start(t, func(c *config.Config) { c.NATS.URL, c.Jobs.Enabled = "nats://"+address, true })
	ready := func() bool {
		resp, err := http.Get(s.AdminURL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	sidecartest.Until(t, "the sidecar is ready", ready)
	n.kill()
	sidecartest.Until(t, "it is not ready without NATS", func() bool { return !ready() })
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	sidecartest.Until(t, "it is ready again", ready)
}
