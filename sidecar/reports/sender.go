package reports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// greeting is what the request plane's process says to one whose reports it takes.
const greeting = "semproxy.reports.v1\n"

const (
	waiting    = 1024                   // reports that wait for their reader at most
	redial     = 100 * time.Millisecond // between two attempts to connect
	greetLimit = 2 * time.Second        // for the greeting to come
)

// Sender is the page plane's end. Make it with [NewSender]; it is safe for concurrent use.
type Sender struct {
	path    string
	log     *slog.Logger
	counts  counts
	queue   chan *Report
	up      atomic.Bool
	dropped atomic.Uint64
}

// NewSender prepares the sending to the socket at path; [Sender.Run] does it.
func NewSender(path string, o Options) (*Sender, error) {
	o = o.withDefaults()
	s := &Sender{path: path, log: o.Logger, queue: make(chan *Report, waiting)}
	var err error
	s.counts, err = newCounts(o.Meter, s.Connected, semconv.OutcomeSent, semconv.OutcomeDropped)
	return s, err
}

// Send takes a report over, which is not changed any more. It never waits: where too many do, the oldest is dropped.
func (s *Sender) Send(r *Report) {
	for {
		select {
		case s.queue <- r:
			return
		default:
		}
		select {
		case <-s.queue:
			s.drop()
		default: // its reader was quicker
		}
	}
}

// Connected says whether the request plane's process takes reports.
func (s *Sender) Connected() bool { return s.up.Load() }

// Dropped counts the reports that were dropped.
func (s *Sender) Dropped() uint64 { return s.dropped.Load() }

func (s *Sender) drop() {
	s.dropped.Add(1)
	s.counts.add(semconv.OutcomeDropped, 1)
}

// Run connects, and again whenever the connection is cut, and sends until ctx ends; then it returns nil.
func (s *Sender) Run(ctx context.Context) error {
	told := false // that it is away
	for ctx.Err() == nil {
		conn, err := s.dial(ctx)
		if err == nil {
			s.log.Info("request_plane_connected", "socket", s.path)
			s.up.Store(true)
			err = s.carry(ctx, conn)
			s.up.Store(false)
			told = false
		}
		if !told && ctx.Err() == nil {
			s.log.Warn("request_plane_away", "socket", s.path, "error", err, "effect", "pages go on; the last reports wait, older ones are dropped")
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
	return nil
}

// dial connects to a process that takes reports: it has said so.
func (s *Sender) dial(ctx context.Context) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, err
	}
	said := make([]byte, len(greeting))
	_ = conn.SetReadDeadline(time.Now().Add(greetLimit))
	if _, err = io.ReadFull(conn, said); err == nil && string(said) != greeting {
		err = errors.New("another program listens there")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("not greeted: %w", err)
	}
	return conn, conn.SetReadDeadline(time.Time{})
}

var errCut = errors.New("the connection was cut")

// carry sends until the connection is cut or ctx ends. A report that was being written then is dropped; those that the other process
// had not read are lost.
func (s *Sender) carry(ctx context.Context, conn net.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		_, _ = conn.Read(make([]byte, 1)) // nothing comes: it returns when the other process goes
		cancel()
	})
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // a write that waits for a slow reader ends
	defer reading.Wait()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return errCut
		case r := <-s.queue:
			line, err := encode(r)
			if err != nil {
				s.drop()
				s.log.Warn("report_dropped", "sequence", r.Page.Sequence, "error", err)
				continue
			}
			if _, err := conn.Write(line); err != nil {
				s.drop()
				return err
			}
			s.counts.add(semconv.OutcomeSent, 1)
		}
	}
}
