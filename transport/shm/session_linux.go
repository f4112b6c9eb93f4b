package shm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Session is a sender's side: a socket to the sidecar of this machine and the regions it was given. Make it with [Dial],
// end it with [Session.Close]. Safe for concurrent use.
type Session struct {
	opts    Options
	conn    *net.UnixConn
	hello   hello
	answers chan answer
	ended   chan struct{} // closed when the socket has ended

	generation atomic.Uint64
	pages      pages

	demands sync.Mutex // one demand and its answer at a time

	mu     sync.Mutex
	area   *area // where new pages go; nil: none yet
	closed bool
}

// area is one region of a session.
type area struct {
	name      string
	file      *os.File
	view      *view // nil: not mapped
	parts     *allocator
	condemned bool // guarded by Session.mu: no new pages; dropped when the last part is given back
}

func (a *area) writeAt(part []byte, offset int64) error {
	if a.view != nil {
		return a.view.write(part, offset)
	}
	_, err := a.file.WriteAt(part, offset)
	return err
}

func (a *area) readAt(part []byte, offset int64) error {
	if a.view != nil {
		return a.view.read(part, offset)
	}
	_, err := a.file.ReadAt(part, offset)
	return err
}

func (a *area) close() {
	a.view.close()
	_ = a.file.Close()
}

// Dial connects to the sidecar at opts.Socket. attach must send challenge as the body of the tenant's attach request to
// that instance, and return its refusal. ctx bounds all of that.
func Dial(ctx context.Context, opts Options, attach func(ctx context.Context, instance, challenge string) error) (*Session, error) {
	opts = opts.withDefaults()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixpacket", opts.Socket)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	s := &Session{opts: opts, conn: conn.(*net.UnixConn), answers: make(chan answer, 1), ended: make(chan struct{})}
	s.pages.attach = attach
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = s.hear(make([]byte, maxMessage), &s.hello)
	if err == nil && s.hello.Semproxy != protocol {
		err = errors.New("the sidecar refuses, or speaks another version of the protocol")
	}
	if err == nil {
		err = s.prove(ctx)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("shared memory: attach: %w", err)
	}
	go s.follow()
	return s, nil
}

// Instance is the last token of the subjects that reach this sidecar alone.
func (s *Session) Instance() string { return s.hello.Instance }

// Ended is closed when the sidecar, or this session, has ended.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// follow hears the sidecar's answers until the socket ends.
func (s *Session) follow() {
	defer close(s.ended)
	packet := make([]byte, maxMessage)
	for {
		var a answer
		if err := s.hear(packet, &a); err != nil {
			return
		}
		if a.ID != 0 {
			s.pages.answered(a)
			continue
		}
		select {
		case s.answers <- a:
		default:
			_ = s.conn.Close() // an answer to nothing
			return
		}
	}
}

func (s *Session) hear(packet []byte, into any) error {
	n, err := s.conn.Read(packet)
	if err != nil {
		return err
	}
	return json.Unmarshal(packet[:n], into)
}

// demand sends d, with a file or without, and waits for the answer.
func (s *Session) demand(d demand, file *os.File) (answer, error) {
	s.demands.Lock()
	defer s.demands.Unlock()
	text, err := json.Marshal(d)
	if err != nil {
		return answer{}, err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err = s.conn.WriteMsgUnix(text, rights, nil); err != nil {
		return answer{}, err
	}
	select {
	case a := <-s.answers:
		if a.Code != "" {
			return a, refused(a.Code, a.Error)
		}
		return a, nil
	case <-s.ended:
		return answer{}, net.ErrClosed
	case <-time.After(s.opts.Timeout):
		_ = s.conn.Close()
		return answer{}, os.ErrDeadlineExceeded
	}
}

// Put lays page in shared memory, with room for a reply of room bytes. The error is [ErrFull] when the regions have no
// space now. The caller ends the lease with Release or Abandon.
func (s *Session) Put(page []byte, room int64) (*Lease, error) {
	a, err := s.open()
	if err != nil {
		return nil, err
	}
	in, ok := a.parts.take(BlockHeader + int64(len(page)))
	if !ok {
		return nil, ErrFull
	}
	out, ok := a.parts.take(BlockHeader + room)
	if !ok {
		s.give(a, in)
		return nil, ErrFull
	}
	l := &Lease{session: s, area: a, in: in, out: out, d: Descriptor{
		Region: a.name, Generation: s.generation.Add(1), Offset: in.offset, Length: int64(len(page)),
		Reply: &Room{Generation: s.generation.Add(1), Offset: out.offset, Length: room},
	}}
	// The generation first: who still reads the block's old content must see that it changed.
	if err = l.write(l.d.Generation, l.d.Offset, page); err == nil {
		err = l.write(l.d.Reply.Generation, l.d.Reply.Offset, nil)
	}
	if err != nil {
		l.Release()
		return nil, err
	}
	if s.opts.Checksum || s.opts.File {
		sum := crc32.ChecksumIEEE(page)
		l.d.CRC32 = &sum
	}
	return l, nil
}

// open returns the region for new pages, making it where there is none.
func (s *Session) open() (*area, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.area != nil {
		return s.area, nil
	}
	size := min(s.opts.RegionBytes, s.hello.MaxRegion)
	file, name, err := makeRegion(size, s.opts.File)
	if err != nil {
		return nil, fmt.Errorf("shared memory: make a region: %w", err)
	}
	d, pass := demand{Op: "add", Size: size, File: name}, file
	if name != "" {
		pass = nil
	}
	granted, err := s.demand(d, pass)
	if name != "" {
		_ = os.Remove(filepath.Join(Folder, name)) // both have it open now
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("shared memory: attach a region: %w", err)
	}
	s.area = &area{name: granted.Region, file: file, parts: newAllocator(size)}
	if name == "" {
		s.area.view = mapView(file, size, true)
	}
	return s.area, nil
}

// makeRegion makes memory of size bytes: a sealed memfd, or a file with a name under [Folder].
func makeRegion(size int64, named bool) (file *os.File, name string, err error) {
	if named {
		if file, err = os.CreateTemp(Folder, FilePrefix); err != nil {
			return nil, "", err
		}
		if err = file.Truncate(size); err != nil {
			_ = os.Remove(file.Name())
			_ = file.Close()
			return nil, "", err
		}
		return file, filepath.Base(file.Name()), nil
	}
	fd, err := unix.MemfdCreate("semproxy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, "", err
	}
	file = os.NewFile(uintptr(fd), "region")
	err = file.Truncate(size)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		_ = file.Close()
		return nil, "", err
	}
	return file, "", nil
}

// give takes back a part, and drops the area if it was the last of a condemned one.
func (s *Session) give(a *area, part span) {
	idle := a.parts.give(part)
	s.mu.Lock()
	drop := idle && a.condemned
	s.mu.Unlock()
	if drop {
		s.drop(a)
	}
}

func (s *Session) drop(a *area) {
	a.close()
	_, _ = s.demand(demand{Op: "drop", Region: a.name}, nil) // a sidecar that does not answer has ended
}

// condemn takes a out of use.
func (s *Session) condemn(a *area) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.condemned = true
	if s.area == a {
		s.area = nil
	}
}

// Close ends the session. The sidecar forgets its regions; pages under way in it fail.
func (s *Session) Close() {
	_ = s.conn.Close() // first: a demand under way fails at once
	s.mu.Lock()
	a := s.area
	s.area, s.closed = nil, true
	s.mu.Unlock()
	<-s.ended
	s.pages.proving.Wait()
	if a != nil {
		a.close()
	}
}
