package transport

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// drainGrace bounds each of the two things that Drain does after its context has ended: waiting for the handlers to
// notice that their context was cancelled, and flushing the replies.
const drainGrace = 2 * time.Second

// Drain stops the server. It leaves the queue group first, so new messages go to other sidecars; every message that has
// reached this process is then worked on and answered. When ctx ends first, what is left (waiting or being worked on) is
// answered with the retryable code "draining" and the handlers' contexts are cancelled. The replies are flushed and the
// workers are awaited before Drain returns. The error says what did not end in time; nil means that everything did,
// also when some requests had to be answered as draining. Further calls do nothing. The connection stays open.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil
	}
	s.draining = true
	subs := s.subs
	s.mu.Unlock()
	s.stopping.Store(true)

	for _, u := range subs {
		s.countSlow(u)
		// An error means that the connection is closed; the subscription ended with it.
		_ = u.sub.Drain()
	}
	ended := awaitClosed(ctx, subs) && await(ctx, s.admission.whenQuiet())

	last, cancel := context.WithTimeout(context.Background(), drainGrace)
	defer cancel()
	if !ended {
		s.refuse.Store(true)
		s.refuseWaiting()
		s.cancel(errDraining)
		awaitClosed(last, subs)
	}
	s.refuseWaiting() // nothing is queued after this: the admission is closed
	var faults []error
	if !await(last, s.admission.whenQuiet()) {
		faults = append(faults, errors.New("a handler ignores its context and still runs"))
	} else {
		s.workers.Wait()
	}
	s.cancel(errDraining)
	if s.cfg.Conn.IsConnected() {
		if err := s.cfg.Conn.FlushTimeout(drainGrace); err != nil {
			faults = append(faults, fmt.Errorf("flush replies: %w", err))
		}
	}
	for _, u := range subs {
		_ = u.sub.Unsubscribe()
		if !await(last, u.watched) {
			faults = append(faults, errors.New("a subscription did not end"))
		}
	}
	if err := s.metrics.close(); err != nil {
		faults = append(faults, fmt.Errorf("unregister metrics: %w", err))
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("transport: drain: %w", err)
	}
	return nil
}

func (s *Server) refuseWaiting() {
	for _, r := range s.admission.takeAll() {
		s.refuseRequest(r, errDraining, s.admission.retryAfter())
	}
}

// awaitClosed waits until no subscription will deliver another message; false if ctx ended first.
func awaitClosed(ctx context.Context, subs []*subscription) bool {
	for _, u := range subs {
		if !await(ctx, u.closed) {
			return false
		}
	}
	return true
}

func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
