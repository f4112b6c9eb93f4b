package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semproxy/semproxy/transport"
)

// natsServer is the nats-server binary of the version in go.mod, built once per test run.
var natsServer struct {
	once sync.Once
	dir  string
	path string
	err  error
}

func buildNATSServer(t *testing.T) string {
	t.Helper()
	natsServer.once.Do(func() {
		if natsServer.dir, natsServer.err = os.MkdirTemp("", "semproxy-nats-"); natsServer.err != nil {
			return
		}
		natsServer.path = filepath.Join(natsServer.dir, "nats-server")
		if runtime.GOOS == "windows" {
			natsServer.path += ".exe"
		}
		out, err := exec.Command("go", "build", "-o", natsServer.path, "github.com/nats-io/nats-server/v2").CombinedOutput()
		if err != nil {
			natsServer.err = fmt.Errorf("build nats-server: %w: %s", err, out)
		}
	})
	if natsServer.err != nil {
		if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "nats") {
			t.Fatal(natsServer.err)
		}
		t.Skip(natsServer.err)
	}
	return natsServer.path
}

func removeNATSServer() {
	if natsServer.dir != "" {
		_ = os.RemoveAll(natsServer.dir)
	}
}

// process is a nats-server in a process of its own.
type process struct{ cmd *exec.Cmd }

func startProcess(t *testing.T, address string, args ...string) *process {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(buildNATSServer(t), append([]string{"-a", host, "-p", port}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start nats-server: %v", err)
	}
	p := &process{cmd}
	t.Cleanup(p.kill)
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("nats-server does not listen: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill sends SIGKILL and waits for the end; further calls do nothing.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ledger is a handler that remembers which pages it saw, and answers with a page's digest.
type ledger struct {
	mu    sync.Mutex
	seen  map[[32]byte]int
	count chan struct{}
}

func newLedger() *ledger {
	return &ledger{seen: make(map[[32]byte]int), count: make(chan struct{}, 1<<16)}
}

func (l *ledger) handle(_ context.Context, _ string, body []byte) (transport.Reply, error) {
	digest := sha256.Sum256(body)
	l.mu.Lock()
	l.seen[digest]++
	l.mu.Unlock()
	l.count <- struct{}{}
	return transport.Reply{Body: digest[:]}, nil
}

func makePage(i int) []byte {
	page := make([]byte, 64<<10)
	copy(page, fmt.Sprintf("page %d", i))
	return page
}

// sendAll sends n different pages from several goroutines and checks every reply.
func sendAll(t *testing.T, c *Client, n int) (retried int) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				page := makePage(i)
				got, err := c.Compress(within(t), page)
				if err != nil {
					t.Errorf("page %d is lost: %v", i, err)
					continue
				}
				if want := sha256.Sum256(page); string(got.Body) != string(want[:]) {
					t.Errorf("page %d: got another page's reply", i)
				}
				mu.Lock()
				retried += got.Attempts - 1
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	return retried
}

func TestNoPageIsLostWhenTheNATSServerIsKilled(t *testing.T) {
	const pages = 200
	address := freeAddress(t)
	nats := startProcess(t, address)
	sidecar, err := transport.Connect("nats://"+address, transport.ConnectOptions{Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer sidecar.Close()
	l := newLedger()
	serve(t, sidecar, handlerFunc(l.handle), nil)
	c := newClient(t, "nats://"+address, func(o *Options) { o.MaxAttempts = 100 })

	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		for range 3 {
			for range pages / 5 {
				<-l.count
			}
			nats.kill()
			nats = startProcess(t, address)
		}
	}()
	retried := sendAll(t, c, pages)
	<-restarted
	if len(l.seen) != pages {
		t.Errorf("pages that reached the handler: got %d, want %d", len(l.seen), pages)
	}
	if retried == 0 {
		t.Error("attempts beyond the first: got 0, want the kills to be felt")
	}
	t.Logf("%d pages, 3 kills, %d attempts beyond the first, 0 lost", pages, retried)
}

func TestNoPageIsLostWhenOneOfTwoSidecarsDrains(t *testing.T) {
	const pages = 400
	address := freeAddress(t)
	startProcess(t, address)
	first, second := newLedger(), newLedger()
	servers := make([]*transport.Server, 0, 2)
	for _, l := range []*ledger{first, second} {
		nc, err := transport.Connect("nats://"+address, transport.ConnectOptions{Logger: quietLog()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		servers = append(servers, serve(t, nc, handlerFunc(l.handle), func(c *transport.Config) { c.QueueLength = 2; c.Workers = 1 }))
	}
	c := newClient(t, "nats://"+address, func(o *Options) { o.MaxAttempts = 100 })
	drained := make(chan error, 1)
	go func() {
		for range 20 {
			<-first.count
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no time at all: what waits is answered as draining
		drained <- servers[0].Drain(ctx)
	}()
	sendAll(t, c, pages)
	if err := <-drained; err != nil {
		t.Errorf("drain: got %v, want nil", err)
	}
	for digest := range first.seen {
		delete(second.seen, digest)
	}
	if got := len(first.seen) + len(second.seen); got != pages {
		t.Errorf("pages that reached a handler: got %d, want %d", got, pages)
	}
}

func TestAClientThatStartsBeforeNATSWaitsForIt(t *testing.T) {
	address := freeAddress(t)
	c := newClient(t, "nats://"+address, nil)
	done := make(chan error, 1)
	go func() { _, err := c.Compress(within(t), []byte("page")); done <- err }()
	startProcess(t, address)
	sidecar, err := transport.Connect("nats://"+address, transport.ConnectOptions{Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer sidecar.Close()
	serve(t, sidecar, handlerFunc(echo), nil)
	if err := <-done; err != nil {
		t.Errorf("got %v, want the page answered", err)
	}
}

func TestAServerThatIsAwayIsARetryableError(t *testing.T) {
	c := newClient(t, "nats://"+freeAddress(t), func(o *Options) { o.Timeout, o.MaxAttempts = 10*time.Millisecond, 2 })
	_, err := c.Compress(within(t), nil)
	_ = wantError(t, err, CodeUnreachable, true)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	c = newClient(t, "nats://"+freeAddress(t), nil)
	if _, err := c.Compress(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("caller's deadline: got %v, want %v", err, context.DeadlineExceeded)
	}
}
