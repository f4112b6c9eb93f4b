package forward

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// maxUploads bounds the bodies that arrive on one connection at one time, which HTTP/2 can have many of.
const maxUploads = 32

// connections are those of clients. When there are as many as there may be, one that serves no request makes room for the next:
// whoever holds many and sends nothing, or half a header, keeps nobody out.
type connections struct {
	max int

	mu   sync.Mutex
	all  map[net.Conn]*connection
	idle list.List // of *connection, which serve nothing; the one that does so for longest first
}

// connection is one of them. A nil one belongs to no listener.
type connection struct {
	of      *connections
	conn    net.Conn
	serving int
	uploads int
	at      *list.Element // in idle; nil: it serves
}

type connectionKey struct{}

func newConnections(most int) *connections {
	return &connections{max: most, all: map[net.Conn]*connection{}}
}

// context is http.Server's ConnContext.
func (c *connections) context(ctx context.Context, conn net.Conn) context.Context {
	one := &connection{of: c, conn: conn}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= c.max {
		if oldest := c.idle.Front(); oldest != nil {
			c.forget(oldest.Value.(*connection))
		}
	}
	c.all[conn] = one
	one.at = c.idle.PushBack(one)
	return context.WithValue(ctx, connectionKey{}, one)
}

// forget closes a connection; c.mu is held.
func (c *connections) forget(one *connection) {
	c.idle.Remove(one.at)
	one.at = nil
	delete(c.all, one.conn)
	_ = one.conn.Close() // its reader sees it
}

// state is http.Server's ConnState.
func (c *connections) state(conn net.Conn, s http.ConnState) {
	if s != http.StateClosed && s != http.StateHijacked {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := c.all[conn]; one != nil {
		delete(c.all, conn)
		if one.at != nil {
			c.idle.Remove(one.at)
			one.at = nil
		}
	}
}

func connectionOf(ctx context.Context) *connection {
	one, _ := ctx.Value(connectionKey{}).(*connection)
	return one
}

// begin and end are called about each request.
func (one *connection) begin() {
	if one == nil {
		return
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	if one.serving++; one.at != nil {
		one.of.idle.Remove(one.at)
		one.at = nil
	}
}

func (one *connection) end() {
	if one == nil {
		return
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	if one.serving--; one.serving == 0 && one.of.all[one.conn] == one {
		one.at = one.of.idle.PushBack(one)
	}
}

// upload says whether one more body may arrive; uploaded follows it.
func (one *connection) upload() bool {
	if one == nil {
		return true
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	if one.uploads >= maxUploads {
		return false
	}
	one.uploads++
	return true
}

func (one *connection) uploaded() {
	if one == nil {
		return
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.uploads--
}
