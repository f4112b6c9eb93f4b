package redistest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// startLimit is how long a server may take to start on a busy machine.
const startLimit = 30 * time.Second

// Need skips the test where there is no redis-server, unless SEMPROXY_TEST_REQUIRE names redis.
func Need(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err == nil {
		return
	}
	if slices.Contains(strings.Split(os.Getenv("SEMPROXY_TEST_REQUIRE"), ","), "redis") {
		t.Fatal("SEMPROXY_TEST_REQUIRE names redis, but there is no redis-server")
	}
	t.Skip("needs redis-server")
}

// Server is a redis-server process.
type Server struct {
	Addr string // host:port

	dir      string
	args     []string
	sentinel string // file of a sentinel's configuration; empty: a server
	bus      int    // port between the nodes of a cluster; 0: no cluster
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
}

// Start starts a server that keeps nothing on disk but what args ask for, such as "--appendonly", "yes". It is stopped
// with the test.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, false, args)
}

func start(t testing.TB, clustered bool, args []string) *Server {
	t.Helper()
	Need(t)
	s := &Server{dir: t.TempDir(), args: args}
	for attempt := 0; ; attempt++ {
		s.Addr = freeAddr(t)
		if clustered {
			s.bus = portOf(freeAddr(t))
		}
		err := s.run()
		if err == nil {
			break
		}
		if attempt == 4 { // another process may take the port between the choice and the start
			t.Fatal(err)
		}
	}
	t.Cleanup(s.Kill)
	return s
}

// Kill ends the process at once, as kill -9 does, and waits for its end.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Restart starts a killed server again, on the same port and files.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

// Client is a client of this server alone, closed with the test.
func (s *Server) Client(t testing.TB) *goredis.Client {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: s.Addr, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// run starts the process and waits until it says that it is ready.
func (s *Server) run() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := append([]string{"--bind", host, "--port", port, "--dir", s.dir, "--save", "", "--daemonize", "no"}, s.args...)
	if s.bus > 0 {
		args = append(args, "--cluster-port", strconv.Itoa(s.bus))
	}
	if s.sentinel != "" {
		args = []string{s.sentinel, "--sentinel"}
	}
	s.cmd = exec.Command("redis-server", args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	s.done = make(chan struct{})
	ready := make(chan string, 1)
	var reader sync.WaitGroup
	reader.Go(func() { watch(out, ready) })
	go func(cmd *exec.Cmd, done chan struct{}) {
		reader.Wait() // Wait closes the pipe
		_ = cmd.Wait()
		close(done)
	}(s.cmd, s.done)
	select {
	case said := <-ready:
		if said == "" {
			return nil
		}
		<-s.done
		return fmt.Errorf("redis-server ended: %s", said)
	case <-time.After(startLimit):
		s.Kill()
		return fmt.Errorf("redis-server was not ready in %v", startLimit)
	}
}

// watch reads the server's log to its end; it sends "" when the server is ready, else what it said last.
func watch(log io.Reader, ready chan<- string) {
	last, told := "nothing was said", false
	for lines := bufio.NewScanner(log); lines.Scan(); {
		last = lines.Text()
		if !told && (strings.Contains(last, "Ready to accept connections") || strings.Contains(last, "+monitor master")) {
			ready <- ""
			told = true
		}
	}
	if !told {
		ready <- last
	}
}

// freeAddr is a loopback address that nobody listens on at the moment.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func portOf(addr string) int {
	_, text, _ := net.SplitHostPort(addr)
	port, _ := strconv.Atoi(text)
	return port
}

// FreePort is a loopback port that nobody listens on at the moment.
func FreePort(t testing.TB) string {
	t.Helper()
	return strconv.Itoa(portOf(freeAddr(t)))
}
