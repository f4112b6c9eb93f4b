package transport

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// subscription is one subject of the server with what has to be watched about it.
type subscription struct {
	subject string
	sub     *nats.Subscription
	closed  chan struct{} // closed after the last message was received
	watched chan struct{} // closed when the watcher has ended
	dropped atomic.Int64  // messages counted as dropped so far
}

// minPendingBytes is the least bound for the bytes of messages that the client library holds for one subscription. Past it
// it drops, and their senders hear nothing until their time is up; receive looks at each within microseconds, but on a
// machine whose cores all compress it may come late. It is what a NATS server by default lets wait for one client.
const minPendingBytes = 64 << 20

// maxPendingMessages bounds the messages that the client library holds for one subscription, beside their bytes.
const maxPendingMessages = 1 << 16

// slowCheck is how often lost messages are counted while a subscription goes on losing them.
const slowCheck = time.Second

// subscribeAll takes requests for any sidecar, and those for this one.
func (s *Server) subscribeAll() error {
	subjects := make([]string, 0, len(shared)+1)
	for _, op := range shared {
		subjects = append(subjects, subjectRoot+".*."+subjectVersion+"."+string(op))
	}
	if s.cfg.Instance != "" {
		subjects = append(subjects, subjectRoot+".*."+subjectVersion+".*."+s.cfg.Instance)
	}
	for _, subject := range subjects {
		sub, err := s.subscribe(subject)
		if err != nil {
			return fmt.Errorf("transport: subscribe to %s: %w", subject, err)
		}
		s.subs = append(s.subs, sub)
	}
	return nil
}

// subscribe joins the queue group for subject. Messages that the client library holds for us are bounded by bytes: as much as
// may be in flight, because receive answers each at once, and not less than minPendingBytes.
func (s *Server) subscribe(subject string) (*subscription, error) {
	u := &subscription{subject: subject, closed: make(chan struct{}), watched: make(chan struct{})}
	sub, err := s.cfg.Conn.QueueSubscribe(subject, QueueGroup, s.receive)
	if err != nil {
		return nil, err
	}
	u.sub = sub
	sub.SetClosedHandler(func(string) { close(u.closed) })
	if err := sub.SetPendingLimits(maxPendingMessages, int(max(s.cfg.InFlightBytes, minPendingBytes))); err != nil {
		_ = sub.Unsubscribe()
		return nil, err
	}
	slow := sub.StatusChanged(nats.SubscriptionSlowConsumer)
	go func() {
		defer close(u.watched)
		again := time.NewTicker(slowCheck)
		defer again.Stop()
		for {
			select {
			case _, open := <-slow:
				if !open {
					slow = nil
				}
			case <-again.C: // the event tells of the first loss of a row only
			case <-u.closed: // slow is not closed where the connection ended first
				return
			}
			s.countSlow(u)
		}
	}()
	return u, nil
}

// countSlow counts and logs the messages that were lost since the last call because we were too slow.
func (s *Server) countSlow(u *subscription) {
	total, err := u.sub.Dropped()
	if err != nil {
		return
	}
	if lost := int64(total) - u.dropped.Swap(int64(total)); lost > 0 {
		s.metrics.countDropped(droppedSlowConsumer, lost)
		s.cfg.Logger.Warn("slow consumer: messages lost", "subject", u.subject, "messages", lost)
	}
}

// unsubscribeAll undoes a start that failed.
func (s *Server) unsubscribeAll() {
	for _, u := range s.subs {
		_ = u.sub.Unsubscribe()
		<-u.watched
	}
	s.subs = nil
	s.cancel(errDraining)
	_ = s.metrics.close()
}
