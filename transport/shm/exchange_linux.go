package shm

import (
	"context"
	"encoding/json"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

// pages are those of a session that are under way by its socket.
type pages struct {
	attach  func(ctx context.Context, instance, challenge string) error
	proving sync.WaitGroup // a proof that is made again

	mu     sync.Mutex
	last   uint64                 // id
	waits  map[uint64]chan answer // by id; nil: nobody waits any more
	proved time.Time              // when the last proof began
	again  time.Time              // when the next may begin
}

// answered gives an answer to whoever waits for it.
func (p *pages) answered(a answer) {
	p.mu.Lock()
	wait := p.waits[a.ID]
	delete(p.waits, a.ID)
	p.mu.Unlock()
	if wait != nil {
		wait <- a // it has room
	}
}

// Exchange sends the page of l by the socket and waits for the reply, which is what it would be over NATS; header is that of
// the request. The error is [ErrSocket] when the page must go over NATS now: nothing was sent; net.ErrClosed when the
// session has ended, or ctx's cause: the page may be worked on.
func (s *Session) Exchange(ctx context.Context, l *Lease, header nats.Header) (*nats.Msg, error) {
	d := demand{Op: "page", Headers: headersOf(header)}
	d.Headers[transport.HeaderMemory] = l.Descriptor()
	wait, ok := s.enter(&d)
	if !ok {
		return nil, ErrSocket
	}
	text, err := json.Marshal(d)
	if err != nil || len(text) > maxMessage {
		s.pages.answered(answer{ID: d.ID})
		return nil, ErrSocket
	}
	if _, err = s.conn.Write(text); err != nil {
		return nil, net.ErrClosed
	}
	select {
	case a := <-wait:
		return &nats.Msg{Header: a.Headers.nats(), Data: []byte(a.Body)}, nil
	case <-s.ended:
		return nil, net.ErrClosed
	case <-ctx.Done():
		s.pages.mu.Lock()
		if _, there := s.pages.waits[d.ID]; there {
			s.pages.waits[d.ID] = nil // its place is taken until the sidecar has answered
		}
		s.pages.mu.Unlock()
		return nil, context.Cause(ctx)
	}
}

// enter gives d an id, if a page may go by the socket now.
func (s *Session) enter(d *demand) (wait chan answer, ok bool) {
	lasts := time.Duration(s.hello.Proof) * time.Millisecond
	p := &s.pages
	p.mu.Lock()
	defer p.mu.Unlock()
	age := time.Since(p.proved)
	if age > lasts/2 && time.Now().After(p.again) && lasts > 0 {
		p.again = time.Now().Add(lasts / 10)
		p.proving.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), s.opts.Timeout)
			defer cancel()
			_ = s.prove(ctx) // until it succeeds, pages go over NATS
		})
	}
	if age > lasts || len(p.waits) >= s.hello.Pages {
		return nil, false
	}
	p.last++
	d.ID = p.last
	if p.waits == nil {
		p.waits = make(map[uint64]chan answer)
	}
	wait = make(chan answer, 1)
	p.waits[d.ID] = wait
	return wait, true
}

// prove shows over NATS whose the socket is.
func (s *Session) prove(ctx context.Context) error {
	began := time.Now()
	if err := s.pages.attach(ctx, s.hello.Instance, s.hello.Challenge); err != nil {
		return err
	}
	s.pages.mu.Lock()
	defer s.pages.mu.Unlock()
	s.pages.proved = began
	return nil
}
