package shm

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

// Supported says whether this system has the fast path.
const Supported = true

// livenessCheck is how often senders whose process is gone are looked for; a closed socket is noticed at once.
const livenessCheck = time.Second

// Server is the sidecar's side: it takes regions on a Unix socket and finds pages in them. It is a transport.Memory.
// Make it with [Listen], end it with [Server.Close]. Safe for concurrent use.
type Server struct {
	cfg      Config
	listener *net.UnixListener
	metrics  *instruments
	buffers  buffers

	mu      sync.Mutex
	senders map[string]*sender // by challenge
	regions map[string]*region // by name
	closed  bool
	take    Take // nil: no pages by sockets

	ended   chan struct{}
	running sync.WaitGroup
}

var _ transport.Memory = (*Server)(nil)

// Listen makes the socket and takes senders. A socket that a dead process left behind is replaced.
func Listen(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, senders: make(map[string]*sender), regions: make(map[string]*region), ended: make(chan struct{}),
	}
	if s.listener, err = listen(cfg); err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	if s.metrics, err = newInstruments(cfg.MeterProvider, s.usage); err != nil {
		_ = s.listener.Close()
		return nil, fmt.Errorf("shared memory: make metrics: %w", err)
	}
	s.running.Go(s.accept)
	s.running.Go(s.watch)
	return s, nil
}

func listen(cfg Config) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: cfg.Socket, Net: "unixpacket"}
	l, err := net.ListenUnix("unixpacket", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		probe, dialErr := net.DialUnix("unixpacket", nil, addr)
		switch {
		case dialErr == nil:
			_ = probe.Close()
			return nil, fmt.Errorf("another process serves %s", cfg.Socket)
		case !errors.Is(dialErr, syscall.ECONNREFUSED):
			return nil, err
		}
		if err := os.Remove(cfg.Socket); err != nil {
			return nil, err
		}
		l, err = net.ListenUnix("unixpacket", addr)
	}
	if err != nil {
		return nil, err
	}
	mode := os.FileMode(0o600)
	if cfg.AnyUser {
		mode = 0o666
	}
	if err := os.Chmod(cfg.Socket, mode); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// Close takes no more senders, ends those that are there and forgets their regions. Pages being read are read to the end.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	all := make([]*sender, 0, len(s.senders))
	for _, p := range s.senders {
		all = append(all, p)
	}
	s.mu.Unlock()
	close(s.ended)
	err := s.listener.Close()
	for _, p := range all {
		_ = p.conn.Close()
	}
	s.running.Wait()
	return errors.Join(err, s.metrics.gauges.Unregister())
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			select {
			case <-s.ended:
				return
			case <-time.After(100 * time.Millisecond): // out of file descriptors
				continue
			}
		}
		s.running.Go(func() { s.serve(conn) })
	}
}

// watch ends senders whose process is gone although somebody still holds the other end of their socket.
func (s *Server) watch() {
	tick := time.NewTicker(livenessCheck)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for _, p := range s.senders {
			if p.peer.Pid > 0 && errors.Is(unix.Kill(int(p.peer.Pid), 0), unix.ESRCH) {
				_ = p.conn.Close()
			}
		}
		s.mu.Unlock()
	}
}

// Attach implements transport.Memory.
func (s *Server) Attach(tenant, challenge string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.senders[challenge]
	if p == nil || (p.tenant != "" && p.tenant != tenant) {
		return refused(CodeBadChallenge, "no sender of this sidecar holds that challenge")
	}
	if p.tenant == "" && s.of(tenant) >= s.cfg.share() {
		return refused(CodeLimit, "this tenant has as many sockets as its share of this sidecar's; close one, or send pages in messages")
	}
	p.proved = time.Now()
	if p.tenant == "" {
		p.tenant = tenant
		_ = p.conn.SetReadDeadline(time.Time{})
		s.cfg.Logger.Info("shared_memory_attached", "tenant", tenant, "pid", p.peer.Pid, "uid", p.peer.Uid)
	}
	return nil
}

// of is how many senders are a tenant's. The lock is held.
func (s *Server) of(tenant string) (n int) {
	for _, p := range s.senders {
		if p.tenant == tenant {
			n++
		}
	}
	return n
}

// Serve gives the pages that come by sockets to take, transport.Server.Accept. Until then they are answered as busy.
func (s *Server) Serve(take Take) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take = take
}

// Open implements transport.Memory.
func (s *Server) Open(tenant, descriptor string) (transport.Block, error) {
	d, err := ParseDescriptor(descriptor)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	r := s.regions[d.Region]
	s.mu.Unlock()
	switch {
	case r == nil:
		return nil, errUnknown
	case r.tenant != tenant:
		s.cfg.Logger.Warn("shared_memory_denied", "tenant", tenant)
		return nil, refused(CodeDenied, "the region belongs to another tenant")
	case d.Length > s.cfg.MaxPageBytes:
		return nil, refused(transport.CodePageTooLarge, "the page is larger than this sidecar takes; send fewer layers or fewer tokens per page")
	case !inside(d.Offset, d.Length, r.size), d.Reply != nil && !inside(d.Reply.Offset, d.Reply.Length, r.size):
		return nil, refused(CodeBadDescriptor, "a block lies outside its region")
	case d.CRC32 == nil && !r.sealed:
		return nil, refused(CodeBadDescriptor, "a page in a file, which can be cut short, needs its crc32")
	}
	return &block{server: s, region: r, d: d}, nil
}

var errUnknown = refused(CodeUnknownRegion, "the region is not attached to this sidecar (any more); attach it anew or send the page in the message")

func (s *Server) usage() (u usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.regions {
		u.regions++
		u.bytes += r.size
	}
	return u
}

// secret returns 128 random bits, hexadecimal.
func secret() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return hex.EncodeToString(b[:])
}
