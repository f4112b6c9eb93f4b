package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// Whatever of a tenant's streams is removed is made again, and jobs are told as before.
func TestStreamsThatAreRemovedAreMadeAgain(t *testing.T) {
	f := start(t)
	l := &ledger{}
	s := f.sidecar(l.handle, nil)
	nc := f.dial()
	for i, stream := range []string{results, dead, waiting} {
		id := "job-" + string(rune('a'+i))
		if err := s.js.DeleteStream(within(t), stream+"acme"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a job is kept after "+stream+" was removed", func() bool {
			return submit(t, nc, "acme", id, "page "+id).Header.Get(transport.HeaderCode) == ""
		})
		wantCode(t, outcome(t, nc, "acme", id), "")
	}
}

// smallJetStream is a NATS server whose JetStream has little room.
func smallJetStream(t *testing.T, room int64) *nats.Conn {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, MaxPayload: 8 << 20,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: room, JetStreamMaxMemory: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server did not start")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestTenantsThatDoNotFitAreToldAndTheOthersAreServed(t *testing.T) {
	nc := smallJetStream(t, 70<<20) // one tenant needs 16 + 8 + 32 MiB
	var mu sync.Mutex
	kinds := map[string]bool{}
	l := &ledger{}
	r, err := New(Config{Conn: nc, MaxBytes: 32 << 20, DeadBytes: 8 << 20, Refresh: 20 * time.Millisecond, Logger: quietLog(),
		Tenants: func() []Tenant { return []Tenant{{Name: "acme"}, {Name: "globex"}, {Name: "initech"}} },
		Refused: func(kind string, _ error) { mu.Lock(); kinds[kind] = true; mu.Unlock() }})
	if err != nil {
		t.Fatal(err)
	}
	plane, err := transport.New(transport.Config{Conn: nc, Handler: handler(l.handle), Limiter: unlimited{}, Jobs: r, Logger: quietLog()})
	if err == nil {
		err = plane.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Run(ctx, plane) }()
	t.Cleanup(func() { _ = plane.Drain(within(t)); cancel(); <-ended })
	eventually(t, "two tenants have no room", func() bool { return len(r.NoRoom()) == 2 && r.Ready() == nil })
	served, told := 0, 0
	for _, tenant := range []string{"acme", "globex", "initech"} {
		reply := submit(t, nc, tenant, "one", "page")
		switch reply.Header.Get(transport.HeaderCode) {
		case "":
			served++
			wantCode(t, outcome(t, nc, tenant, "one"), "")
		case CodeNoRoom:
			told++
			if reply.Header.Get(transport.HeaderRetryable) != "false" {
				t.Errorf("%s: %s is retryable, and waiting does not help", tenant, CodeNoRoom)
			}
		default:
			t.Errorf("%s: got %s %s", tenant, reply.Header.Get(transport.HeaderCode), reply.Data)
		}
	}
	if served != 1 || told != 2 {
		t.Errorf("%d served, %d told, want 1 and 2", served, told)
	}
	mu.Lock()
	defer mu.Unlock()
	if !kinds["no_room"] {
		t.Errorf("refusals: got %v, want no_room", kinds)
	}
}

// dying is a sidecar that ends as soon as it works on a page.
func (f *fixture) dying(trial func(context.Context, string, []byte) bool) {
	f.t.Helper()
	taken, never := make(chan struct{}, 8), make(chan struct{})
	f.t.Cleanup(func() { close(never) })
	s := f.sidecar(func(ctx context.Context, _ string, _ []byte) (transport.Reply, error) {
		taken <- struct{}{}
		select {
		case <-never:
		case <-ctx.Done():
		}
		return transport.Reply{}, ctx.Err()
	}, func(s *setting) { s.jobs.AckWait, s.jobs.Trial = 300*time.Millisecond, trial })
	select {
	case <-taken:
	case <-time.After(patience):
		f.t.Fatal("the job did not come")
	}
	s.nc.Close()
}

func TestAPoisonJobBecomesADeadLetterAfterItsSecondDeath(t *testing.T) {
	f := start(t)
	nc := f.dial()
	f.sidecarThatSubmits(t, nc, "poison", "page")
	f.dying(nil)
	f.dying(nil)
	l := &ledger{}
	f.sidecar(l.handle, func(s *setting) { s.jobs.AckWait = 300 * time.Millisecond })
	wantCode(t, outcome(t, nc, "acme", "poison"), CodePoison)
	if l.count("acme page") != 0 {
		t.Error("the page was worked on after its second death")
	}
	submit(t, nc, "acme", "other", "other page")
	wantCode(t, outcome(t, nc, "acme", "other"), "")
	letters, err := f.admin().DeadLetters(within(t), "acme")
	if err != nil || len(letters) != 1 || letters[0].Code != CodePoison || letters[0].Bytes != len("page") {
		t.Errorf("letters: got %+v, %v, want the page", letters, err)
	}
}

// sidecarThatSubmits puts a job into its stream and goes away before it works on it.
func (f *fixture) sidecarThatSubmits(t *testing.T, nc *nats.Conn, id, page string) {
	t.Helper()
	s := f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) { return transport.Reply{}, nil },
		func(s *setting) { s.queue = func(Queue) Queue { return refusing{} } })
	wantCode(t, submit(t, nc, "acme", id, page), "")
	s.stop()
}

// refusing is a queue of a sidecar that is stopping.
type refusing struct{}

func (refusing) Offer(*transport.Job) (time.Duration, *transport.Error) {
	return 0, transport.NewError(transport.CodeDraining, "stopping")
}

func TestATrialThatDiesSparesTheSidecar(t *testing.T) {
	f := start(t)
	nc := f.dial()
	f.sidecarThatSubmits(t, nc, "poison", "page")
	f.dying(nil)
	l := &ledger{}
	f.sidecar(l.handle, func(s *setting) {
		s.jobs.AckWait = 300 * time.Millisecond
		s.jobs.Trial = func(_ context.Context, tenant string, page []byte) bool {
			return tenant == "acme" && string(page) == "page"
		}
	})
	wantCode(t, outcome(t, nc, "acme", "poison"), CodePoison)
	if l.count("acme page") != 0 {
		t.Error("the page was worked on in the sidecar after its trial had died")
	}
}

func TestAnInnocentJobSurvivesItsTrial(t *testing.T) {
	f := start(t)
	nc := f.dial()
	f.sidecarThatSubmits(t, nc, "innocent", "page")
	f.dying(nil)
	f.dying(func(context.Context, string, []byte) bool { return false })
	l := &ledger{}
	f.sidecar(l.handle, func(s *setting) {
		s.jobs.AckWait = 300 * time.Millisecond
		s.jobs.Trial = func(context.Context, string, []byte) bool { return false }
	})
	wantCode(t, outcome(t, nc, "acme", "innocent"), "")
	if l.count("acme page") != 1 {
		t.Errorf("worked on %d times, want 1", l.count("acme page"))
	}
}

// What is given back by a sidecar that lives is no death, however often that happens.
func TestAJobThatIsGivenBackIsNoPoison(t *testing.T) {
	f := start(t)
	nc := f.dial()
	tries := 0
	f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) {
		if tries++; tries < 6 {
			return transport.Reply{}, transport.NewError(transport.CodeStore, "away")
		}
		return transport.Reply{}, nil
	}, func(s *setting) {
		s.plane.Workers = 1
		s.jobs.Trial = func(context.Context, string, []byte) bool { t.Error("it was tried apart"); return true }
	})
	submit(t, nc, "acme", "one", "page")
	wantCode(t, outcome(t, nc, "acme", "one"), "")
}

// After the loss of a NATS server a job is given out again, and may come to the sidecar that works on it.
func TestAJobThatComesAgainToWhoHasItIsNoPoison(t *testing.T) {
	f := start(t)
	taken, leave := make(chan struct{}, 8), make(chan struct{})
	s := f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) {
		taken <- struct{}{}
		<-leave
		return transport.Reply{}, nil
	}, func(s *setting) { s.plane.Workers = 8 })
	goOn := sync.OnceFunc(func() { close(leave) })
	t.Cleanup(goOn)
	nc := f.dial()
	submit(t, nc, "acme", "one", "page")
	for times := range deathsAlone + 2 {
		if times > 0 {
			f.giveOutAgain(s.nc, times)
		}
		select {
		case <-taken:
		case <-time.After(patience):
			t.Fatalf("the job was worked on %d times, want %d", times, deathsAlone+2)
		}
	}
	goOn()
	wantCode(t, outcome(t, nc, "acme", "one"), "")
	if letters, err := f.admin().DeadLetters(within(t), "acme"); err != nil || len(letters) != 0 {
		t.Errorf("letters: got %+v, %v, want none", letters, err)
	}
}

// giveOutAgain makes the NATS server give out the only job of acme again, which it has given out so many times.
func (f *fixture) giveOutAgain(nc *nats.Conn, times int) {
	f.t.Helper()
	subject := fmt.Sprintf("$JS.ACK.%sacme.%s.%d.1.%d.0.0", waiting, durable, times, times)
	if err := nc.Publish(subject, []byte("-NAK")); err != nil {
		f.t.Fatal(err)
	}
}

func TestAJobWhoseBytesWereChangedIsNotWorkedOn(t *testing.T) {
	f := start(t)
	l := &ledger{}
	s := f.sidecar(l.handle, nil)
	nc := f.dial()
	msg := &nats.Msg{Subject: jobSubject("acme"), Data: []byte("pbge"), Header: nats.Header{HeaderJob: {"one"}, HeaderDigest: {digestOf([]byte("page"))}}}
	if _, err := s.js.PublishMsg(within(t), msg); err != nil {
		t.Fatal(err)
	}
	wantCode(t, outcome(t, nc, "acme", "one"), codeDamaged)
	if l.count("acme pbge") != 0 {
		t.Error("the changed page was worked on")
	}
	o := f.admin()
	letters, err := o.DeadLetters(within(t), "acme")
	if err != nil || len(letters) != 1 {
		t.Fatalf("letters: got %v, %v, want 1", letters, err)
	}
}

func TestAnotherPageUnderAnIDThatIsTakenIsRefused(t *testing.T) {
	f := start(t)
	l := &ledger{}
	f.sidecar(l.handle, nil)
	nc := f.dial()
	wantCode(t, submit(t, nc, "acme", "same", "page"), "")
	wantCode(t, submit(t, nc, "acme", "same", "another page"), CodeTaken) // waiting, or told
	wantCode(t, outcome(t, nc, "acme", "same"), "")
	wantCode(t, submit(t, nc, "acme", "same", "another page"), CodeTaken)
	if got := submit(t, nc, "acme", "same", "page"); got.Header.Get(HeaderAgain) != "true" {
		t.Errorf("the same page again: got %v, want a duplicate", got.Header)
	}
}

func TestKindsOfJetStreamRefusals(t *testing.T) {
	for want, err := range map[string]error{
		"no_room": errors.Join(ErrNoRoom), "removed": jetstream.ErrConsumerDeleted, "not_enabled": jetstream.ErrJetStreamNotEnabled,
		"away": context.DeadlineExceeded, "refused": &jetstream.APIError{ErrorCode: 1},
	} {
		if got := kindOf(err); got != want {
			t.Errorf("%v: got %s, want %s", err, got, want)
		}
	}
	if !strings.Contains(ErrNoRoom.Error(), "jobs.maxBytes") {
		t.Error("the remedy is not named")
	}
}
