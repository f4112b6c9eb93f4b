package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// StartSentinel starts a sentinel that watches master under the name, and gives it up after half a second. Another
// server is made the replica that takes over with "--replicaof", "127.0.0.1 PORT".
func StartSentinel(t testing.TB, name string, master *Server) *Server {
	t.Helper()
	Need(t)
	s := &Server{Addr: freeAddr(t), dir: t.TempDir()}
	s.sentinel = filepath.Join(s.dir, "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nsentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 3000\n",
		portOf(s.Addr), s.dir, name, master.Port(), name, name)
	if err := os.WriteFile(s.sentinel, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Port is the server's port.
func (s *Server) Port() int { return portOf(s.Addr) }
