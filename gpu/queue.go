package gpu

import (
	"context"
	"sync"
	"time"
)

// queue forms batches of the pages that wait: the pages of all tenants share the slots, in the order in which they come.
type queue struct {
	latency time.Duration

	mu      sync.Mutex
	device  *device
	lost    error
	closed  bool
	free    []*slot
	forming *slot   // the batch that is being formed
	ready   []*slot // batches that are formed
	room    chan struct{}
	wake    chan struct{} // for the executor
}

func newQueue(latency time.Duration) *queue {
	return &queue{latency: latency, room: make(chan struct{}), wake: make(chan struct{}, 1)}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// changed lets everybody who waits for room look again. q.mu is held.
func (q *queue) changed() {
	close(q.room)
	q.room = make(chan struct{})
}

// open makes a device's slots available.
func (q *queue) open(d *device) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.device, q.lost = d, nil
	q.free = append(q.free[:0], d.slots...)
	q.changed()
}

// lose makes further pages go elsewhere.
func (q *queue) lose(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.device, q.lost, q.free = nil, err, nil
	q.seal()
	q.changed()
}

// available reports whether pages are taken.
func (q *queue) available() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.device != nil && !q.closed
}

// enter reserves room for a page in a batch, waiting for it where necessary, and returns the page's share of the memory.
func (q *queue) enter(ctx context.Context, t *task) (in, work *arena, why reason, err error) {
	q.mu.Lock()
	for {
		switch {
		case q.closed:
			why = reasonClosed
		case q.device == nil:
			why, err = reasonLost, q.lost
		case t.needs == (need{}):
			t.measure(q.device.info.Multiprocessors)
			if s := q.device.slots[0]; !s.takes(t) || !q.device.supports(t) {
				why = reasonTooLarge
			}
		}
		if why != 0 {
			q.mu.Unlock()
			return nil, nil, why, err
		}
		if q.forming != nil && !q.forming.fits(t) {
			q.seal()
			q.signal()
		}
		if q.forming == nil && len(q.free) > 0 {
			q.forming = q.free[len(q.free)-1]
			q.free = q.free[:len(q.free)-1]
			q.forming.reset()
			q.forming.users = 1 // the executor
		}
		if s := q.forming; s != nil {
			in, work = s.reserve(t)
			first := len(s.tasks) == 1
			q.mu.Unlock()
			if first {
				q.signal()
			}
			return in, work, 0, nil
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return nil, nil, 0, ctx.Err()
		}
		q.mu.Lock()
	}
}

// seal ends the forming of a batch. q.mu is held.
func (q *queue) seal() {
	if s := q.forming; s != nil {
		s.started = time.Now()
		q.ready = append(q.ready, s)
		q.forming = nil
	}
}

// take is the next batch that is formed, nil when there is none.
func (q *queue) take() *slot {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pop()
}

func (q *queue) pop() *slot {
	if len(q.ready) == 0 {
		return nil
	}
	s := q.ready[0]
	q.ready = q.ready[1:]
	return s
}

// next is the batch to take on: one that is formed, or the one that is being formed once its first page has waited long enough.
// When there is none it waits, if wait is set, else it returns nil.
func (q *queue) next(wait bool) (s *slot, closed bool) {
	for {
		q.mu.Lock()
		left := q.latency
		if s = q.pop(); s == nil && q.forming != nil {
			if left = q.latency - time.Since(q.forming.opened); left <= 0 || q.closed {
				q.seal()
				s = q.pop()
			}
		}
		forming, closed := q.forming != nil, q.closed
		q.mu.Unlock()
		if s != nil || !wait || (closed && !forming) {
			return s, closed
		}
		if !forming {
			<-q.wake
			continue
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-q.wake:
			timer.Stop()
		}
	}
}

// leave ends the use of a slot by one of its callers, or by the executor. The last one to leave frees it.
func (q *queue) leave(s *slot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left(s)
}

func (q *queue) left(s *slot) {
	if s.users--; s.users > 0 {
		return
	}
	if q.device != nil && q.device == s.device {
		q.free = append(q.free, s)
	}
	q.changed()
}

// abandon gives up waiting for a task. It reports false when the task is done.
func (q *queue) abandon(t *task) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !t.over {
		t.abandoned = true
	}
	return t.abandoned
}

// finish hands a batch over to its callers.
func (q *queue) finish(s *slot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, t := range s.tasks {
		t.over, t.queued, t.pages = true, s.started.Sub(t.entered), len(s.tasks)
		close(t.done)
		if t.abandoned {
			q.left(s)
		}
	}
	q.left(s)
}

// drain waits until nobody uses a device's memory.
func (q *queue) drain(d *device) {
	for {
		q.mu.Lock()
		used, room := 0, q.room
		for _, s := range d.slots {
			used += s.users
		}
		q.mu.Unlock()
		if used == 0 {
			return
		}
		<-room
	}
}

// sleep waits for a time; true when the queue is closed before.
func (q *queue) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		q.mu.Lock()
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return true
		}
		select {
		case <-timer.C:
			return false
		case <-q.wake:
		}
	}
}

// close refuses further pages. Those that are in are finished.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.changed()
	q.mu.Unlock()
	q.signal()
}
