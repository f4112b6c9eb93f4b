package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/client"
)

// natsServer is a plain NATS server that outlives the sidecars of a test.
func natsServer(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: 8 << 20, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return s.ClientURL()
}

// process is a running "semproxy serve".
type process struct {
	cmd *exec.Cmd
	log *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program, append([]string{"serve", "--admin-listen", "127.0.0.1:0"}, args...)...), log: &lockedBuffer{}}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// ready waits until the sidecar answers; a request is the only readiness that a sender can see.
func ready(t *testing.T, url, tenant string) {
	t.Helper()
	c := dial(t, url, client.Options{Tenant: tenant, MaxAttempts: 400, Backoff: client.Backoff{First: 10 * time.Millisecond, Max: 100 * time.Millisecond}})
	if _, err := c.Stat(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, url string, opt client.Options) *client.Client {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	opt.TracerProvider = noop.NewTracerProvider()
	c, err := client.New(conn, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

const demoPolicy = "../../configs/policies/demo.yaml"

// sendUntil sends pages in turn, each once, until stop is closed. Every page gets an answer or an error that says that it may be sent
// again; sendUntil returns the first error that does not.
func sendUntil(stop <-chan struct{}, c *client.Client, pages [][]byte) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		var ce *client.Error
		if _, err := c.Compress(context.Background(), pages[i%len(pages)]); err != nil && (!errors.As(err, &ce) || !ce.Retryable) {
			return fmt.Errorf("without retries: %w", err)
		}
	}
}

func TestSIGTERMUnderLoadLosesNothing(t *testing.T) {
	url := natsServer(t)
	first := startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	ready(t, url, "acme")

	pages := sidecartest.Distinct(t, 120)
	var answered, retried atomic.Int64
	half := make(chan struct{})
	work := make(chan int)
	errs := make(chan error, len(pages))
	var senders sync.WaitGroup
	for range 6 {
		// One that retries loses nothing.
		c := dial(t, url, client.Options{Tenant: "acme", MaxAttempts: 200, Backoff: client.Backoff{First: 10 * time.Millisecond, Max: 100 * time.Millisecond}})
		senders.Add(1)
		go func() {
			defer senders.Done()
			for i := range work {
				reply, err := c.Compress(context.Background(), pages[i])
				if err == nil {
					err = sidecartest.About(reply.Body, fmt.Sprint("page-", i))
				}
				if err != nil {
					errs <- fmt.Errorf("page %d: %w", i, err)
					continue
				}
				if reply.Attempts > 1 {
					retried.Add(1)
				}
				if answered.Add(1) == int64(len(pages)/3) {
					close(half)
				}
			}
		}()
	}
	once := dial(t, url, client.Options{Tenant: "acme", MaxAttempts: 1})
	stop := make(chan struct{})
	senders.Go(func() {
		if err := sendUntil(stop, once, pages); err != nil {
			errs <- err
		}
	})
	feed := make(chan struct{})
	go func() {
		defer close(feed)
		for i := range pages {
			work <- i
		}
		close(work)
	}()

	<-half
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Wait(); err != nil {
		t.Errorf("the drained process ended with %v:\n%s", err, first.log)
	}
	second := startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	<-feed
	close(stop)
	senders.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if answered.Load() != int64(len(pages)) {
		t.Errorf("%d of %d pages were answered\nfirst:\n%s\nsecond:\n%s", answered.Load(), len(pages), first.log, second.log)
	}
	if !strings.Contains(first.log.String(), "draining") || !strings.Contains(first.log.String(), "stopped") {
		t.Errorf("the log does not tell of the drain:\n%s", first.log)
	}
	t.Logf("%d pages answered, %d of them after a retry", answered.Load(), retried.Load())
}

func TestPolicyReloadInARunningProcess(t *testing.T) {
	url := natsServer(t)
	file := t.TempDir() + "/tenants.yaml"
	write := func(profile string) {
		t.Helper()
		tmp := file + ".tmp"
		text := "apiVersion: semproxy.io/v1\nprofiles: { half: { method: semantic, ratio: 0.5 } }\ntenants: { acme: { rules: [ { profile: " + profile + " } ] } }\n"
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, file); err != nil {
			t.Fatal(err)
		}
	}
	write("exact")
	p := startProcess(t, "--nats-url", url, "--policy-path", file)
	ready(t, url, "acme")
	c := dial(t, url, client.Options{Tenant: "acme"})
	outcome := func() string {
		reply, err := c.Compress(context.Background(), sidecartest.Page(t, "kjv"))
		if err != nil {
			t.Fatal(err)
		}
		return reply.Header.Get(sidecar.HeaderOutcome)
	}
	if got := outcome(); got != "exact" {
		t.Fatalf("outcome %q, want exact", got)
	}
	write("half")
	sidecartest.Until(t, "the new policy compresses", func() bool { return outcome() == "compressed" || outcome() == "stored" })
	write("nonsense")
	sidecartest.Until(t, "the bad policy is refused", func() bool { return strings.Contains(p.log.String(), "policy_rejected") })
	if got := outcome(); got != "stored" {
		t.Errorf("outcome %q under the last good policy, want stored", got)
	}
}

func TestPythonSenderOfTheREADME(t *testing.T) {
	python := "python3"
	if p := os.Getenv("SEMPROXY_PYTHON"); p != "" {
		python = p
	}
	if err := exec.Command(python, "-c", "import nats, safetensors, numpy").Run(); err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "python") {
			t.Fatalf("SEMPROXY_TEST_REQUIRE names python, but %s cannot import nats, safetensors and numpy: %v", python, err)
		}
		t.Skip("needs Python with nats-py, safetensors and numpy; SEMPROXY_PYTHON names the interpreter")
	}
	url := natsServer(t)
	startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	ready(t, url, "acme")
	send := func(tenant, file string) (string, error) {
		var out bytes.Buffer
		cmd := exec.Command(python, "../../docs/examples/send_page.py", url, tenant, file)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	out, err := send("globex", demoFile)
	if err != nil || !strings.Contains(out, "'k': (5, 2, 160, 64)") || !strings.Contains(out, "'bias': (5, 2, 160)") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := send("globex", "main_test.go"); err == nil || !strings.Contains(out, "page.") {
		t.Errorf("a file that is no page: %v\n%s", err, out)
	}
}
