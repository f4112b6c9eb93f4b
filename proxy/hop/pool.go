package hop

import (
	"slices"
	"time"
)

// take is a kept connection that is as it should be; nil: there is none.
func (t *Transport) take() *conn {
	for {
		t.mu.Lock()
		last := len(t.idle) - 1
		if last < 0 {
			t.mu.Unlock()
			return nil
		}
		c := t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		t.mu.Unlock()
		if time.Since(c.since) < t.opt.KeepAlive && quiet(c.raw) {
			return c
		}
		_ = c.raw.Close()
	}
}

// put keeps a connection.
func (t *Transport) put(c *conn) {
	c.since, c.served = time.Now(), true
	t.mu.Lock()
	keep := len(t.idle) < t.opt.Idle
	if keep {
		t.idle = append(t.idle, c)
		if t.timer == nil {
			t.timer = time.AfterFunc(t.opt.KeepAlive, t.sweep)
		}
	}
	t.mu.Unlock()
	if !keep {
		_ = c.raw.Close()
	}
}

// sweep closes connections that nobody has used for too long.
func (t *Transport) sweep() {
	t.mu.Lock()
	old := 0 // they are in the order of their last use
	for old < len(t.idle) && time.Since(t.idle[old].since) >= t.opt.KeepAlive {
		old++
	}
	gone := slices.Clone(t.idle[:old])
	t.idle = slices.Delete(t.idle, 0, old)
	switch {
	case len(t.idle) == 0:
		t.timer = nil
	default:
		t.timer.Reset(max(time.Millisecond, t.opt.KeepAlive-time.Since(t.idle[0].since)))
	}
	t.mu.Unlock()
	for _, c := range gone {
		_ = c.raw.Close()
	}
}

// CloseIdleConnections closes those that serve no request.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	gone := t.idle
	t.idle = nil
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.mu.Unlock()
	for _, c := range gone {
		_ = c.raw.Close()
	}
}

// Idle is how many connections are kept.
func (t *Transport) Idle() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.idle)
}
