package reports

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

const (
	maxSenders  = 8           // connections at one time: one is usual, two while a process takes another's place
	refusalNext = time.Minute // refusals that go on are logged as often
)

// Receiver is the request plane's end. Make it with [Listen], end it with [Receiver.Close]; it is safe for concurrent use.
type Receiver struct {
	path     string
	take     func(*Report)
	log      *slog.Logger
	counts   counts
	listener *net.UnixListener
	allowed  func(*net.UnixConn) error // who may send
	senders  atomic.Int32
	refused  atomic.Int64 // when a refusal was last logged, in nanoseconds
}

// Listen makes the socket at path, for this process's user alone. A socket that a dead process left behind is replaced. take is told of
// every report, one at a time of each connection; connections wait for [Receiver.Run].
func Listen(path string, take func(*Report), o Options) (*Receiver, error) {
	o = o.withDefaults()
	r := &Receiver{path: path, take: take, log: o.Logger, allowed: sameUser}
	var err error
	if r.counts, err = newCounts(o.Meter, r.Connected, semconv.OutcomeReceived, semconv.OutcomeRefused); err != nil {
		return nil, err
	}
	r.listener, err = listen(path)
	return r, err
}

// Connected says whether a page plane's process sends its reports.
func (r *Receiver) Connected() bool { return r.senders.Load() > 0 }

// Close removes the socket; connections that Run has taken end with its context.
func (r *Receiver) Close() error {
	if err := r.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run takes reports until ctx ends, then it returns nil.
func (r *Receiver) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	var serving sync.WaitGroup
	defer serving.Wait()
	for {
		conn, err := r.listener.AcceptUnix()
		switch {
		case err == nil:
			serving.Go(func() { r.serve(ctx, conn) })
		case errors.Is(err, net.ErrClosed):
			return nil
		default: // out of file descriptors
			time.Sleep(redial)
		}
	}
}

// serve takes the reports of one connection.
func (r *Receiver) serve(ctx context.Context, conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := r.allowed(conn); err != nil {
		r.refuse(err)
		return
	}
	if r.senders.Add(1) > maxSenders {
		r.senders.Add(-1)
		r.refuse(errors.New("too many connections"))
		return
	}
	defer r.senders.Add(-1)
	_ = conn.SetWriteDeadline(time.Now().Add(greetLimit))
	if _, err := conn.Write([]byte(greeting)); err != nil {
		return // it looked whether somebody listens here
	}
	r.log.Info("page_plane_connected", "socket", r.path)
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 16<<10), maxLine)
	for lines.Scan() {
		report, err := decode(lines.Bytes())
		if err != nil {
			r.refuse(err)
			return
		}
		r.counts.add(semconv.OutcomeReceived, 1)
		r.take(report)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		r.refuse(errTooLong)
		return
	}
	if ctx.Err() == nil {
		r.log.Warn("page_plane_away", "socket", r.path, "effect", "prompts stay exact until it is back")
	}
}

// refuse counts, and logs once in a while.
func (r *Receiver) refuse(err error) {
	r.counts.add(semconv.OutcomeRefused, 1)
	now, last := time.Now().UnixNano(), r.refused.Load()
	if last != 0 && now-last < int64(refusalNext) || !r.refused.CompareAndSwap(last, now) {
		return
	}
	r.log.Warn("reports_refused", "socket", r.path, "error", err)
}
