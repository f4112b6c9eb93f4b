package client

import (
	"context"
	"errors"
	"maps"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/shm"
)

// memory is a client's fast path: a session with the sidecar of this machine, made anew when it has ended.
type memory struct {
	client *Client

	mu      sync.Mutex
	session *shm.Session // nil: none
	next    time.Time    // when a session may be tried again
	closed  bool
}

const (
	attachTime  = 2 * time.Second // for making a session
	attachPause = time.Second     // between failed attempts to make one; pages go over NATS meanwhile
)

// attempt sends msg's page through shared memory. done is false where that is not possible now: the page then goes over
// NATS within the same attempt.
func (m *memory) attempt(ctx context.Context, msg *nats.Msg) (reply *nats.Msg, e *Error, done bool) {
	session := m.open(ctx)
	if session == nil {
		return nil, nil, false
	}
	lease, err := session.Put(msg.Data, roomFor(len(msg.Data)))
	if err != nil {
		return nil, nil, false
	}
	reply, e = m.exchange(ctx, session, lease, msg.Header)
	switch {
	case e == nil && reply.Header.Get(transport.HeaderMemory) == "": // it did not fit its room
		lease.Release()
		return reply, nil, true
	case e == nil:
		reply.Data, err = lease.Reply(reply.Header.Get(transport.HeaderMemory))
		if err != nil {
			lease.Abandon()
			return nil, nil, false
		}
		lease.Release()
		return reply, nil, true
	case strings.HasPrefix(e.Code, "shm."):
		lease.Release()
		if e.Code == shm.CodeUnknownRegion {
			m.end(session)
		}
		return nil, nil, false
	case e.answered && (e.Code == transport.CodeDraining || e.Code == transport.CodeReplyTooLarge): // over NATS there is another sidecar, or room
		lease.Release()
		return nil, nil, false
	case e.answered:
		lease.Release()
		return nil, e, true
	}
	lease.Abandon()
	if e.Code == CodeUnreachable && m.client.nc.IsConnected() { // the sidecar is gone, another may be there
		m.end(session)
		return nil, nil, false
	}
	return nil, e, true
}

// exchange sends the descriptor of lease by the session's socket, or over NATS where that is not possible now.
func (m *memory) exchange(ctx context.Context, session *shm.Session, lease *shm.Lease, header nats.Header) (*nats.Msg, *Error) {
	reply, err := session.Exchange(ctx, lease, header)
	var e *Error
	if err == nil {
		e = replyError(reply)
	}
	switch {
	case errors.Is(err, shm.ErrSocket), e != nil && (e.Code == shm.CodePages || e.Code == shm.CodeNotAttached):
		subject, err := transport.InstanceSubject(m.client.opts.Tenant, transport.OpCompress, session.Instance())
		if err != nil {
			return nil, sendError(err)
		}
		short := &nats.Msg{Subject: subject, Header: maps.Clone(header)}
		short.Header.Set(transport.HeaderMemory, lease.Descriptor())
		return m.client.send(ctx, short)
	case errors.Is(err, net.ErrClosed):
		return nil, &Error{Code: CodeUnreachable, Message: "the sidecar's socket has ended", Retryable: true, cause: err}
	case err != nil:
		return nil, sendError(err)
	case e != nil:
		return nil, e
	}
	return reply, nil
}

// roomFor is the most that the cores of a page can take: an exact page with counts, bias and positions.
func roomFor(page int) int64 { return int64(page) + int64(page)/4 + 64<<10 }

// open returns the session, making it where there is none; nil if it cannot be made now.
func (m *memory) open(ctx context.Context) *shm.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session != nil {
		select {
		case <-m.session.Ended():
			m.session.Close()
			m.session = nil
		default:
			return m.session
		}
	}
	if m.closed || time.Now().Before(m.next) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	session, err := shm.Dial(ctx, m.client.opts.SharedMemory, m.attach)
	if err != nil {
		m.next = time.Now().Add(attachPause)
		return nil
	}
	m.session = session
	return session
}

// attach proves over NATS whose the session is.
func (m *memory) attach(ctx context.Context, instance, challenge string) error {
	subject, err := transport.InstanceSubject(m.client.opts.Tenant, transport.OpAttach, instance)
	if err != nil {
		return err
	}
	if _, e := m.client.send(ctx, &nats.Msg{Subject: subject, Data: []byte(challenge)}); e != nil {
		return e
	}
	return nil
}

// end closes a session that is of no further use.
func (m *memory) end(session *shm.Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == session {
		session.Close()
		m.session = nil
	}
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.session != nil {
		m.session.Close()
		m.session = nil
	}
}
