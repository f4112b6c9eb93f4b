package transport

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func TestDrainFinishesWhatIsInFlightAndLeavesTheQueueGroup(t *testing.T) {
	g := newGate()
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(g.handle), func(c *Config) { c.Workers = 1 })
	nc := dial(t, e)
	running := ask(nc, "kv.acme.v1.compress", []byte("running"))
	g.await(t)
	waiting := ask(nc, "kv.acme.v1.compress", []byte("waiting"))
	eventually(t, "one waits", func() bool { return s.admission.load().queued == 1 })

	drained := make(chan error, 1)
	go func() { drained <- s.Drain(within(t)) }()
	for _, u := range s.subs {
		<-u.closed
	}
	if _, err := nc.Request("kv.acme.v1.stat", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a new message: got %v, want %v", err, nats.ErrNoResponders)
	}
	select {
	case err := <-drained:
		t.Fatalf("Drain returned %v while a page was worked on", err)
	default:
	}
	close(g.leave)
	wantReply(t, receive(t, running), "")
	wantReply(t, receive(t, waiting), "")
	if err := <-drained; err != nil {
		t.Errorf("Drain: got %v, want nil", err)
	}
	if err := s.Drain(within(t)); err != nil {
		t.Errorf("second Drain: got %v, want nil", err)
	}
	if got := s.admission.load(); got.queued+got.running != 0 || got.bytes != 0 {
		t.Errorf("after Drain: got %+v, want nothing in flight", got)
	}
}

func TestWhatCannotFinishIsAnsweredAsDraining(t *testing.T) {
	for name, honours := range map[string]bool{"handler honours its context": true, "handler ignores its context": false} {
		t.Run(name, func(t *testing.T) {
			entered, leave := make(chan struct{}, 1), make(chan struct{})
			e := startNATS(t, EmbeddedOptions{})
			s := serve(t, e, handlerFunc(func(ctx context.Context, _ string, _ []byte) (Reply, error) {
				entered <- struct{}{}
				if honours {
					<-ctx.Done()
					return Reply{}, ctx.Err()
				}
				<-leave
				return Reply{}, nil
			}), func(c *Config) { c.Workers = 1 })
			nc := dial(t, e)
			running := ask(nc, "kv.acme.v1.compress", nil)
			<-entered
			waiting := ask(nc, "kv.acme.v1.compress", nil)
			eventually(t, "one waits", func() bool { return s.admission.load().queued == 1 })

			ended, cancel := context.WithCancel(context.Background())
			cancel()
			err := s.Drain(ended)
			wantReply(t, receive(t, running), CodeDraining)
			wantReply(t, receive(t, waiting), CodeDraining)
			if honours != (err == nil) {
				t.Errorf("Drain: got %v, want an error only where a handler still runs", err)
			}
			close(leave)
			s.workers.Wait()
		})
	}
}

func TestDrainUnderLoadAnswersEveryPage(t *testing.T) {
	const senders, bodySize = 8, 64 << 10
	for name, deadline := range map[string]time.Duration{"with time": patience, "without time": 0} {
		t.Run(name, func(t *testing.T) {
			e := startNATS(t, EmbeddedOptions{})
			work := make(chan struct{}, 1024)
			s := serve(t, e, handlerFunc(func(_ context.Context, _ string, body []byte) (Reply, error) {
				select {
				case work <- struct{}{}:
				default:
				}
				return Reply{Body: body}, nil
			}), func(c *Config) { c.Workers, c.QueueLength = 2, 4 })
			var mu sync.Mutex
			outcomes := map[string]int{}
			var senderGroup sync.WaitGroup
			for range senders {
				nc := dial(t, e)
				senderGroup.Go(func() {
					body := make([]byte, bodySize)
					for {
						msg, err := nc.Request("kv.acme.v1.compress", body, patience)
						outcome := ""
						switch {
						case err == nil:
							outcome = msg.Header.Get(HeaderStatus) + msg.Header.Get(HeaderCode)
						case errors.Is(err, nats.ErrNoResponders):
							outcome = "nobody"
						default:
							outcome = err.Error()
						}
						mu.Lock()
						outcomes[outcome]++
						mu.Unlock()
						if outcome == "nobody" || strings.Contains(outcome, "nats:") {
							return
						}
					}
				})
			}
			for range 200 {
				<-work
			}
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			if err := s.Drain(ctx); err != nil {
				t.Errorf("Drain: got %v, want nil", err)
			}
			senderGroup.Wait()
			for outcome, n := range outcomes {
				switch outcome {
				case "ok", "errorbusy", "errordraining", "nobody":
				default:
					t.Errorf("outcome %q: got %d, want every page answered or refused as retryable", outcome, n)
				}
			}
			if outcomes["ok"] < 200 || outcomes["nobody"] != senders {
				t.Errorf("outcomes: got %v, want at least 200 ok and %d senders that found nobody", outcomes, senders)
			}
		})
	}
}

func TestDrainBeforeStartAndOnAClosedConnection(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Listen: InProcessOnly})
	nc, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	cfg := Config{Conn: nc, Handler: handlerFunc(echo), Limiter: limiterFunc(unlimited), Logger: quietLog()}
	never, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := never.Drain(within(t)); err != nil {
		t.Errorf("Drain before Start: got %v, want nil", err)
	}
	if err := never.Start(); err == nil {
		t.Error("Start after Drain: got nil, want an error")
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := s.Drain(within(t)); err != nil {
		t.Errorf("Drain on a closed connection: got %v, want nil", err)
	}
}
