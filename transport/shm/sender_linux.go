package shm

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

// attachTime is how long a new socket may take to prove its tenant.
const attachTime = 30 * time.Second

// sender is one process on the Unix socket.
type sender struct {
	conn     *net.UnixConn
	socket   syscall.RawConn // of conn
	peer     unix.Ucred
	tenant   string    // guarded by Server.mu; empty until it is bound
	proved   time.Time // guarded by Server.mu; when it was bound last
	regions  map[string]*region
	underWay atomic.Int32 // pages by this socket
	text     [maxMessage]byte
	control  [unix.SizeofCmsghdr + 32]byte
}

// serve speaks with one sender until its socket ends; its regions end with it.
func (s *Server) serve(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	p := &sender{conn: conn, socket: raw, regions: make(map[string]*region)}
	challenge, no := s.greet(p)
	if no != nil {
		s.metrics.count("", no.Code())
		p.say(answer{Code: no.Code(), Error: no.Error()})
		return
	}
	defer s.forget(p, challenge)
	for {
		d, files, err := p.listen()
		if err != nil {
			return
		}
		if d.Op == "page" {
			closeAll(files)
			if !s.page(p, d) {
				return
			}
			continue
		}
		a := answer{}
		if e := s.obey(p, d, files, &a); e != nil {
			s.mu.Lock()
			tenant := p.tenant
			s.mu.Unlock()
			s.metrics.count(tenant, e.Code())
			s.cfg.Logger.Warn("shared_memory_refused", "tenant", tenant, "pid", p.peer.Pid, "code", e.Code())
			a = answer{Code: e.Code(), Error: e.Error()}
		}
		closeAll(files)
		if !p.say(a) {
			return
		}
	}
}

// greet checks who is there and gives a challenge.
func (s *Server) greet(p *sender) (challenge string, refusal *transport.Error) {
	var cred *unix.Ucred
	var sockErr error
	err := p.socket.Control(func(fd uintptr) { cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, sockErr); err == nil {
		p.peer = *cred
	}
	if err != nil || (!s.cfg.AnyUser && p.peer.Uid != 0 && int(p.peer.Uid) != os.Geteuid()) {
		return "", refused(CodePeer, "processes of this user may not attach memory to this sidecar")
	}
	challenge = secret()
	s.mu.Lock()
	full := s.closed || len(s.senders) >= s.cfg.MaxSenders
	if !full {
		s.senders[challenge] = p
	}
	s.mu.Unlock()
	if full {
		return "", refused(CodeLimit, "this sidecar has as many senders of shared memory as it takes")
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(attachTime))
	p.say(hello{
		Semproxy: protocol, Instance: s.cfg.Instance, Challenge: challenge, MaxRegion: s.cfg.MaxRegionBytes,
		Pages: s.cfg.MaxPages, Proof: s.cfg.Proof.Milliseconds(),
	})
	return challenge, nil
}

// forget lets go of all that a sender had.
func (s *Server) forget(p *sender, challenge string) {
	s.mu.Lock()
	delete(s.senders, challenge)
	for name := range p.regions {
		delete(s.regions, name)
	}
	tenant := p.tenant
	s.mu.Unlock()
	for _, r := range p.regions {
		r.close()
	}
	if tenant != "" {
		s.cfg.Logger.Info("shared_memory_detached", "tenant", tenant, "pid", p.peer.Pid, "regions", len(p.regions))
	}
}

// obey does what a sender demands. Files that it keeps are taken out of files.
func (s *Server) obey(p *sender, d demand, files []*os.File, a *answer) *transport.Error {
	s.mu.Lock()
	tenant := p.tenant
	s.mu.Unlock()
	switch {
	case tenant == "":
		return refused(CodeNotAttached, "send the challenge on the tenant's attach subject first")
	case d.Op == "drop":
		r := p.regions[d.Region]
		if r == nil {
			return errUnknown
		}
		s.mu.Lock()
		delete(s.regions, d.Region)
		s.mu.Unlock()
		delete(p.regions, d.Region)
		r.close()
		return nil
	case d.Op != "add":
		return refused(CodeBadRegion, "the operation must be add, drop or page")
	case len(p.regions) >= s.cfg.MaxRegions || d.Size > s.cfg.MaxRegionBytes:
		return refused(CodeLimit, "more regions, or a larger one, than this sidecar takes of one sender")
	}
	file, err := openRegion(d, files, p.peer.Uid)
	if err != nil {
		return err
	}
	r := &region{tenant: tenant, file: file, size: d.Size, sealed: d.File == ""}
	if r.sealed {
		r.view = mapView(file, d.Size, false)
	}
	a.Region = secret()
	p.regions[a.Region] = r
	s.mu.Lock()
	s.regions[a.Region] = r
	s.mu.Unlock()
	return nil
}

// listen reads one packet and the files that came with it, which are the caller's.
func (p *sender) listen() (d demand, files []*os.File, err error) {
	n, cn, flags, _, err := p.conn.ReadMsgUnix(p.text[:], p.control[:])
	if err != nil {
		return d, nil, err
	}
	files = received(p.control[:cn])
	if err := json.Unmarshal(p.text[:n], &d); err != nil || flags&unix.MSG_TRUNC != 0 {
		d = demand{Op: "?"} // refused with its code
	}
	return d, files, nil
}

// received makes files of the descriptors in a packet's control data.
func received(control []byte) (files []*os.File) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "region"))
		}
	}
	return files
}

// say sends v without waiting, from any goroutine. A sender that does not read what it is told is not waited for, since
// workers must not be held up by it: its socket ends, and its pages go over NATS.
func (p *sender) say(v any) bool {
	text, err := json.Marshal(v)
	if err != nil || len(text) > maxMessage {
		return false
	}
	var sent error
	err = p.socket.Write(func(fd uintptr) bool {
		for {
			_, sent = unix.SendmsgN(int(fd), text, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if !errors.Is(sent, unix.EINTR) {
				return true
			}
		}
	})
	if errors.Is(sent, unix.EAGAIN) {
		_ = p.conn.Close()
	}
	return err == nil && sent == nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
