package jobs

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

func TestAJobIsKeptWorkedOnToldAndForgotten(t *testing.T) {
	f := start(t)
	l := &ledger{}
	f.sidecar(l.handle, nil)
	nc := f.dial()
	told, err := nc.SubscribeSync(DoneSubject("acme", "one"))
	if err != nil {
		t.Fatal(err)
	}
	reply := submit(t, nc, "acme", "one", "page")
	wantCode(t, reply, "")
	if reply.Header.Get(HeaderJob) != "one" || reply.Header.Get(HeaderAgain) != "false" {
		t.Errorf("reply: got %v, want job one, no duplicate", reply.Header)
	}
	msg, err := told.NextMsg(patience)
	if err != nil || msg.Header.Get(transport.HeaderStatus) != transport.StatusOK || msg.Header.Get("Semproxy-Object") != "of page" {
		t.Errorf("told: got %v, %v, want the object", msg, err)
	}
	got := outcome(t, nc, "acme", "one")
	wantCode(t, got, "")
	if got.Header.Get("Semproxy-Object") != "of page" {
		t.Errorf("result: got %v, want the object", got.Header)
	}
	o := f.admin()
	eventually(t, "the job is gone from its stream", func() bool {
		s := f.state(o, "acme")
		return s.Waiting == 0 && s.InHand == 0 && s.WaitingBytes == 0 && s.MaxBytes == 256<<20
	})
	if l.count("acme page") != 1 {
		t.Errorf("worked on %d times, want 1", l.count("acme page"))
	}
}

func TestDuplicatesOfOneTenantAndForgedIDsOfAnother(t *testing.T) {
	f := start(t)
	l := &ledger{}
	f.sidecar(l.handle, nil)
	nc := f.dial()
	for i, want := range []string{"false", "true"} {
		if got := submit(t, nc, "acme", "same", "page").Header.Get(HeaderAgain); got != want {
			t.Errorf("submission %d of one id: duplicate %s, want %s", i, got, want)
		}
	}
	// The same id from another tenant suppresses nothing, before or after.
	if got := submit(t, nc, "globex", "same", "other page").Header.Get(HeaderAgain); got != "false" {
		t.Error("a job was suppressed by the id of another tenant's")
	}
	// Without an id a page is named by its digest.
	first, second := submit(t, nc, "acme", "", "a page"), submit(t, nc, "acme", "", "a page")
	if first.Header.Get(HeaderJob) != second.Header.Get(HeaderJob) || second.Header.Get(HeaderAgain) != "true" {
		t.Errorf("the same page twice: got %v and %v, want one job", first.Header, second.Header)
	}
	for _, id := range []string{"a.b", "*", ">", "a b", strings.Repeat("x", 65), "replay.1"} {
		wantCode(t, submit(t, nc, "acme", id, "page"), CodeBadID)
	}
	for tenant, id := range map[string]string{"acme": "same", "globex": "same"} {
		wantCode(t, outcome(t, nc, tenant, id), "")
	}
	if a, g := l.count("acme page"), l.count("globex other page"); a != 1 || g != 1 {
		t.Errorf("worked on %d and %d times, want 1 each", a, g)
	}
}

func TestAFaultThatPassesIsTriedAgain(t *testing.T) {
	f := start(t)
	var calls atomic.Int64
	f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) {
		if calls.Add(1) < 3 {
			return transport.Reply{}, transport.NewError(transport.CodeStore, "away")
		}
		return transport.Reply{}, nil
	}, nil)
	nc := f.dial()
	submit(t, nc, "acme", "one", "page")
	wantCode(t, outcome(t, nc, "acme", "one"), "")
	if calls.Load() != 3 {
		t.Errorf("calls: got %d, want 3", calls.Load())
	}
}

func TestABadPageBecomesADeadLetterThatCanBeReplayed(t *testing.T) {
	f := start(t)
	var repaired atomic.Bool
	f.sidecar(func(_ context.Context, _ string, page []byte) (transport.Reply, error) {
		if !repaired.Load() {
			return transport.Reply{}, transport.NewError("page.bad_shape", "the shape of k is wrong")
		}
		return transport.Reply{Header: map[string]string{"Semproxy-Object": string(page)}}, nil
	}, nil)
	nc, o := f.dial(), f.admin()
	for _, id := range []string{"one", "two"} {
		submit(t, nc, "acme", id, "page "+id)
		reply := outcome(t, nc, "acme", id)
		wantCode(t, reply, "page.bad_shape")
		if string(reply.Data) != "the shape of k is wrong" {
			t.Errorf("sentence: got %q", reply.Data)
		}
	}
	eventually(t, "the jobs are gone from their stream", func() bool { s := f.state(o, "acme"); return s.Waiting+uint64(s.InHand) == 0 && s.Dead == 2 })
	letters, err := o.DeadLetters(within(t), "acme")
	if err != nil || len(letters) != 2 {
		t.Fatalf("letters: got %v, %v, want 2", letters, err)
	}
	l := letters[0]
	if l.Job != "one" || l.Code != "page.bad_shape" || l.Reason != "the shape of k is wrong" || l.Bytes != 8 || l.Tries != 1 || l.Partial || l.Time.IsZero() {
		t.Errorf("letter: got %+v", l)
	}
	if got, err := o.DeadLetters(within(t), "globex"); err != nil || len(got) != 0 {
		t.Errorf("another tenant's letters: got %v, %v, want none", got, err)
	}
	repaired.Store(true)
	if err := o.Replay(within(t), "acme", l.Number); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replayed job is done", func() bool { return outcome(t, nc, "acme", "one").Header.Get("Semproxy-Object") == "page one" })
	if err := o.Replay(within(t), "acme", l.Number); err == nil {
		t.Error("a letter that was replayed can be replayed again")
	}
	if err := o.Drop(within(t), "acme", letters[1].Number); err != nil {
		t.Error(err)
	}
	if s := f.state(o, "acme"); s.Dead != 0 {
		t.Errorf("dead letters: got %d, want 0", s.Dead)
	}
	if _, err := o.DeadLetters(within(t), "nobody"); err == nil || !strings.Contains(err.Error(), "no jobs") {
		t.Errorf("a tenant without streams: got %v", err)
	}
}

func TestALetterOfAPageThatDoesNotFitKeepsItsHead(t *testing.T) {
	page := make([]byte, 1000)
	page[0] = 40 // the length of a safetensors header
	if got := head(page); len(got) != 48 {
		t.Errorf("head: got %d bytes, want 48", len(got))
	}
	page[7] = 0xff
	if got := head(page); len(got) != len(page) {
		t.Errorf("no header: got %d bytes, want all %d", len(got), len(page))
	}
	if got := head(nil); len(got) != 0 {
		t.Errorf("empty: got %d bytes", len(got))
	}
	f := start(t)
	f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) {
		return transport.Reply{}, transport.NewError("page.bad_shape", "wrong")
	}, nil)
	nc, o := f.dial(), f.admin()
	large := make([]byte, transport.DefaultMaxPayload-600)
	large[0] = 40
	submit(t, nc, "acme", "large", string(large))
	wantCode(t, outcome(t, nc, "acme", "large"), "page.bad_shape")
	letters, err := o.DeadLetters(within(t), "acme")
	if err != nil || len(letters) != 1 || !letters[0].Partial || letters[0].Bytes != 48 {
		t.Fatalf("letters: got %+v, %v, want the page's head of 48 bytes", letters, err)
	}
	if err := o.Replay(within(t), "acme", letters[0].Number); !errors.Is(err, ErrPartial) {
		t.Errorf("replay: got %v, want %v", err, ErrPartial)
	}
}

func TestAJobThatIsGivenOutTooOftenBecomesADeadLetter(t *testing.T) {
	f := start(t)
	f.sidecar(func(context.Context, string, []byte) (transport.Reply, error) {
		return transport.Reply{}, transport.NewError(transport.CodeStore, "away")
	}, func(s *setting) { s.jobs.MaxDeliveries = 2 })
	nc := f.dial()
	submit(t, nc, "acme", "one", "page")
	wantCode(t, outcome(t, nc, "acme", "one"), CodeGaveUp)
}

func TestAFullStreamRefusesAndDropsNothing(t *testing.T) {
	f := start(t)
	leave := make(chan struct{})
	l := &ledger{}
	f.sidecar(func(ctx context.Context, tenant string, page []byte) (transport.Reply, error) {
		<-leave
		return l.handle(ctx, tenant, page)
	}, func(s *setting) {
		s.jobs.Tenants = func() []Tenant { return []Tenant{{Name: "acme", MaxBytes: 64 << 10}, {Name: "globex"}} }
		s.plane.Workers = 8
	})
	nc := f.dial()
	page := strings.Repeat("x", 20<<10)
	var kept []string
	for _, id := range []string{"a", "b", "c", "d"} {
		reply := submit(t, nc, "acme", id, page)
		if reply.Header.Get(transport.HeaderCode) == "" {
			kept = append(kept, id)
			continue
		}
		wantCode(t, reply, CodeFull)
		if reply.Header.Get(transport.HeaderRetryable) != "true" || reply.Header.Get(transport.HeaderRetryAfter) == "" {
			t.Errorf("headers: got %v, want retryable with a time", reply.Header)
		}
	}
	if len(kept) != 3 {
		t.Errorf("kept: got %v, want three of 20 KiB in 64 KiB", kept)
	}
	wantCode(t, submit(t, nc, "globex", "a", page), "")
	close(leave)
	for _, id := range kept {
		wantCode(t, outcome(t, nc, "acme", id), "")
	}
}

func TestLimitsOfAStreamFollowThePolicy(t *testing.T) {
	f := start(t)
	var limit atomic.Int64
	limit.Store(1 << 20)
	l := &ledger{}
	f.sidecar(l.handle, func(s *setting) {
		s.jobs.Tenants = func() []Tenant { return []Tenant{{Name: "acme", MaxBytes: limit.Load()}} }
	})
	nc, o := f.dial(), f.admin()
	wantCode(t, submit(t, nc, "globex", "a", "page"), transport.CodeNoJobs)
	if got := f.state(o, "acme").MaxBytes; got != 1<<20 {
		t.Errorf("limit: got %d, want %d", got, 1<<20)
	}
	limit.Store(2 << 20)
	eventually(t, "the stream has its new limit", func() bool { return f.state(o, "acme").MaxBytes == 2<<20 })
	submit(t, nc, "acme", "a", "page")
	wantCode(t, outcome(t, nc, "acme", "a"), "")
}

func TestWorkThatTakesLongerThanAckWaitIsDoneOnce(t *testing.T) {
	f := start(t)
	var calls atomic.Int64
	f.sidecar(func(ctx context.Context, _ string, _ []byte) (transport.Reply, error) {
		calls.Add(1)
		select {
		case <-time.After(1500 * time.Millisecond): // what is tested is time that passes
		case <-ctx.Done():
		}
		return transport.Reply{}, nil
	}, func(s *setting) { s.jobs.AckWait = 400 * time.Millisecond })
	nc := f.dial()
	submit(t, nc, "acme", "one", "page")
	wantCode(t, outcome(t, nc, "acme", "one"), "")
	if calls.Load() != 1 {
		t.Errorf("calls: got %d, want 1", calls.Load())
	}
}

func TestAJobOfASidecarThatDisappearsGoesToAnother(t *testing.T) {
	f := start(t)
	taken, never := make(chan struct{}, 8), make(chan struct{})
	first := f.sidecar(func(ctx context.Context, _ string, _ []byte) (transport.Reply, error) {
		taken <- struct{}{}
		select {
		case <-never:
		case <-ctx.Done():
		}
		return transport.Reply{}, ctx.Err()
	}, func(s *setting) { s.jobs.AckWait = 300 * time.Millisecond })
	nc := f.dial()
	submit(t, nc, "acme", "one", "page")
	<-taken
	first.nc.Close() // as if it were killed
	l := &ledger{}
	f.sidecar(l.handle, func(s *setting) { s.jobs.AckWait = 300 * time.Millisecond })
	wantCode(t, outcome(t, nc, "acme", "one"), "")
	if l.count("acme page") != 1 {
		t.Errorf("the other sidecar worked on it %d times, want 1", l.count("acme page"))
	}
	close(never)
}

// counter watches what of the jobs has been read and is not settled.
type counter struct {
	Queue
	now, most atomic.Int64
	reads     atomic.Int64
}

func (c *counter) Offer(j *transport.Job) (time.Duration, *transport.Error) {
	read, done := j.Read, j.Done
	copied := *j
	copied.Read = func(ctx context.Context) ([]byte, error) {
		c.reads.Add(1)
		now := c.now.Add(j.Size)
		for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
		}
		return read(ctx)
	}
	copied.Done = func(ctx context.Context, r transport.Reply, e *transport.Error, after time.Duration) {
		c.now.Add(-j.Size)
		done(ctx, r, e, after)
	}
	return c.Queue.Offer(&copied)
}

func TestPagesAreAdmittedBeforeTheyAreRead(t *testing.T) {
	const bound, size, jobs = 250 << 10, 100 << 10, 20
	f := start(t)
	l := &ledger{}
	var c *counter
	f.sidecar(l.handle, func(s *setting) {
		s.plane.InFlightBytes, s.plane.Workers = bound, 16
		s.queue = func(q Queue) Queue { c = &counter{Queue: q}; return c }
	})
	nc := f.dial()
	for i := range jobs {
		id := string(rune('a' + i))
		for submit(t, nc, "acme", id, strings.Repeat(id, size)).Header.Get(transport.HeaderCode) != "" {
			time.Sleep(5 * time.Millisecond) // busy: as long as jobs use the bytes
		}
	}
	for i := range jobs {
		wantCode(t, outcome(t, nc, "acme", string(rune('a'+i))), "")
	}
	if c.most.Load() > bound || c.reads.Load() < jobs {
		t.Errorf("bytes read at once: got %d in %d reads, want at most %d", c.most.Load(), c.reads.Load(), bound)
	}
}

func TestUnknownJobsAndBadIDs(t *testing.T) {
	f := start(t)
	f.sidecar((&ledger{}).handle, nil)
	nc := f.dial()
	for id, code := range map[string]string{"nobody": CodePending, "a.b": CodeBadID, "": CodeBadID, "*": CodeBadID, ">": CodeBadID} {
		reply, err := nc.Request("kv.acme.v1.result", []byte(id), patience)
		if err != nil {
			t.Fatal(err)
		}
		wantCode(t, reply, code)
	}
}

// In one account the NATS server sends JetStream's answers, and sidecars theirs, to whatever reply subject a sender
// names. None of that may reach another tenant's jobs.
func TestAReplySubjectReachesNothingOfAnotherTenant(t *testing.T) {
	users := []transport.User{{Tenant: "acme", Name: "a", Password: "a"}, {Tenant: "globex", Name: "g", Password: "g"}}
	for name, users := range map[string][]transport.User{"users": users, "nobody logs in": nil} {
		t.Run(name, func(t *testing.T) {
			f := start(t, users...)
			l := &ledger{}
			f.sidecar(l.handle, nil)
			opts := []nats.Option{nats.CustomInboxPrefix("_INBOX.acme")}
			if f.PrivateInboxes() {
				opts = append(opts, nats.UserInfo("a", "a"))
			}
			nc := f.dial(opts...)
			o := f.admin()
			for _, reply := range []string{
				"kv.globex.v1.job", "semproxy.jobs.globex", "semproxy.dead.globex", "kv.globex.v1.done.x",
				"$JS.API.STREAM.PURGE.SEMPROXY_JOBS_globex", "$JS.API.STREAM.DELETE.SEMPROXY_JOBS_globex",
			} {
				for _, op := range []string{"job", "result", "compress", "get"} {
					if err := nc.PublishRequest("kv.acme.v1."+op, reply, []byte("evil "+op)); err != nil {
						t.Fatal(err)
					}
				}
				for _, subject := range []string{"semproxy.jobs.globex", "semproxy.jobs.acme", "semproxy.dead.globex", "kv.globex.v1.done.x", "kv.acme.v1.done.x", "$JS.API.STREAM.PURGE.SEMPROXY_JOBS_globex"} {
					_ = nc.PublishRequest(subject, "_INBOX.acme.x", nil) // refused by the NATS server
				}
			}
			wantCode(t, submit(t, nc, "acme", "last", "page"), "") // the server has seen all of the above
			wantCode(t, outcome(t, nc, "acme", "last"), "")
			if s := f.state(o, "globex"); s.Waiting+uint64(s.InHand)+s.Dead != 0 {
				t.Errorf("globex: got %+v, want nothing", s)
			}
			for key := range l.seen {
				if strings.HasPrefix(key, "globex") {
					t.Errorf("worked on as globex's: %q", key)
				}
			}
			if f.state(o, "globex").MaxBytes == 0 {
				t.Error("the stream of globex is gone")
			}
		})
	}
}
