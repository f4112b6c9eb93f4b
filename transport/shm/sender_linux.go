package shm

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

// attachTime is how long a new socket may take to prove its tenant.
const attachTime = 30 * time.Second

// sender is one process on the Unix socket.
type sender struct {
	conn    *net.UnixConn
	peer    unix.Ucred
	tenant  string // guarded by Server.mu; empty until it is bound
	regions map[string]*region
}

// serve speaks with one sender until its socket ends; its regions end with it.
func (s *Server) serve(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	p := &sender{conn: conn, regions: make(map[string]*region)}
	challenge, err := s.greet(p)
	if err != nil {
		s.metrics.count("", err.Code())
		p.say(answer{Code: err.Code(), Error: err.Error()})
		return
	}
	defer s.forget(p, challenge)
	for {
		d, files, err := p.listen()
		if err != nil {
			return
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
	raw, err := p.conn.SyscallConn()
	if err == nil {
		var cred *unix.Ucred
		var sockErr error
		err = raw.Control(func(fd uintptr) { cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		if err = errors.Join(err, sockErr); err == nil {
			p.peer = *cred
		}
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
	p.say(hello{Semproxy: protocol, Instance: s.cfg.Instance, Challenge: challenge, MaxRegion: s.cfg.MaxRegionBytes})
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
		_ = r.file.Close()
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
		_ = r.file.Close()
		return nil
	case d.Op != "add":
		return refused(CodeBadRegion, "the operation must be add or drop")
	case len(p.regions) >= s.cfg.MaxRegions || d.Size > s.cfg.MaxRegionBytes:
		return refused(CodeLimit, "more regions, or a larger one, than this sidecar takes of one sender")
	}
	file, err := openRegion(d, files, p.peer.Uid)
	if err != nil {
		return err
	}
	r := &region{tenant: tenant, file: file, size: d.Size, sealed: d.File == ""}
	a.Region = secret()
	p.regions[a.Region] = r
	s.mu.Lock()
	s.regions[a.Region] = r
	s.mu.Unlock()
	return nil
}

// listen reads one packet and the files that came with it, which are the caller's.
func (p *sender) listen() (d demand, files []*os.File, err error) {
	text := make([]byte, maxMessage)
	control := make([]byte, unix.CmsgSpace(4*4))
	n, cn, _, _, err := p.conn.ReadMsgUnix(text, control)
	if err != nil {
		return d, nil, err
	}
	files = received(control[:cn])
	if err := json.Unmarshal(text[:n], &d); err != nil {
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

func (p *sender) say(v any) bool {
	text, err := json.Marshal(v)
	if err != nil {
		return false
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err = p.conn.Write(text)
	return err == nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}
