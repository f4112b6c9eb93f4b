package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// errLost ends the attempts that wait for a reply when the connection is lost: the request may have been lost with it.
var errLost = errors.New("the connection was lost")

// link follows the state of a connection, so that attempts neither wait for replies that a lost connection will not
// bring nor are used up while the connection is down. Its goroutine ends with close or with the connection.
type link struct {
	nc     *nats.Conn
	events chan nats.Status
	ended  chan struct{}
	once   sync.Once

	mu      sync.Mutex
	up      chan struct{} // closed while the connection is up or closed for good
	waiting map[*waiter]struct{}
}

type waiter struct {
	subject string
	before  error // the connection's last error when the wait began
	cancel  context.CancelCauseFunc
}

// permissionCheck is how often the connection's last error is looked at while requests wait: NATS tells of a refused
// publish only there (and to the one error handler, which is the connection owner's).
const permissionCheck = 50 * time.Millisecond

func watch(nc *nats.Conn) *link {
	l := &link{nc: nc, ended: make(chan struct{}), up: make(chan struct{}), waiting: make(map[*waiter]struct{})}
	l.events = nc.StatusChanged(nats.CONNECTED, nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	l.refresh()
	go l.follow()
	return l
}

func (l *link) follow() {
	defer close(l.ended)
	check := time.NewTicker(permissionCheck)
	defer check.Stop()
	for {
		select {
		case status, ok := <-l.events:
			l.refresh()
			if ok && (status == nats.RECONNECTING || status == nats.DISCONNECTED) {
				l.cancelAll(errLost)
			}
			if !ok || status == nats.CLOSED {
				l.cancelAll(nats.ErrConnectionClosed)
				return
			}
		case <-check.C:
			l.refresh()
			l.checkPermissions()
		}
	}
}

// refresh sets up from the connection's state.
func (l *link) refresh() {
	usable := l.nc.IsConnected() || l.nc.IsClosed() || l.nc.IsDraining()
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.up:
		if !usable {
			l.up = make(chan struct{})
		}
	default:
		if usable {
			close(l.up)
		}
	}
}

// waitUp waits until the connection is up (or closed for good: then the request itself fails).
func (l *link) waitUp(ctx context.Context) error {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	select {
	case <-up:
		return nil
	default:
	}
	select {
	case <-up:
		return nil
	case <-l.ended:
		return nats.ErrConnectionClosed
	case <-ctx.Done():
		return nats.ErrDisconnected
	}
}

// enter returns a context that ends also when the connection is lost; leave forgets it.
func (l *link) enter(ctx context.Context, subject string) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &waiter{subject: subject, before: l.nc.LastError(), cancel: cancel}
	l.mu.Lock()
	l.waiting[w] = struct{}{}
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		delete(l.waiting, w)
		l.mu.Unlock()
		cancel(nil)
	}
}

func (l *link) cancelAll(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.waiting {
		w.cancel(cause)
	}
}

// checkPermissions ends the attempts that the NATS server refused to pass on.
func (l *link) checkPermissions() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return
	}
	err := l.nc.LastError()
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	for w := range l.waiting {
		if !errors.Is(err, w.before) && strings.Contains(err.Error(), `"`+w.subject+`"`) {
			w.cancel(err)
		}
	}
}

func (l *link) close() {
	l.once.Do(func() { l.nc.RemoveStatusListener(l.events) })
	<-l.ended
}
