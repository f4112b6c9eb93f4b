package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

func TestEachOperationReachesItsMethodWithTheSubjectsTenant(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, recorder{}, nil)
	nc := dial(t, e)
	for _, op := range []Op{OpCompress, OpGet, OpStat} {
		msg := call(t, nc, "kv.acme.v1."+string(op), []byte("body"))
		wantReply(t, msg, "")
		if got, want := string(msg.Data), string(op)+" acme body"; got != want {
			t.Errorf("reply: got %q, want %q", got, want)
		}
		if got := msg.Header.Get("X-Test"); got != "kept" {
			t.Errorf("handler's header: got %q, want kept", got)
		}
	}
}

type recorder struct{}

func (recorder) reply(op, tenant string, body []byte) (Reply, error) {
	return Reply{
		Body:   []byte(op + " " + tenant + " " + string(body)),
		Header: map[string]string{"X-Test": "kept", "semproxy-status": "forged", HeaderCode: "forged"},
	}, nil
}
func (r recorder) Compress(_ context.Context, tenant string, body []byte) (Reply, error) {
	return r.reply("compress", tenant, body)
}
func (r recorder) Get(_ context.Context, tenant string, body []byte) (Reply, error) {
	return r.reply("get", tenant, body)
}
func (r recorder) Stat(_ context.Context, tenant string, body []byte) (Reply, error) {
	return r.reply("stat", tenant, body)
}

func TestHandlerErrorsBecomeReplies(t *testing.T) {
	faults := map[string]error{
		"shape":  fmt.Errorf("decode: %w", &Error{code: "page.bad_shape", text: "k must have 4 dimensions"}),
		"store":  &Error{code: CodeStore, text: "the store is away"},
		"plain":  errors.New("password=hunter2 refused"),
		"limits": &Error{code: CodeRate, text: "slow down"},
	}
	logs := &logBuffer{}
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(_ context.Context, _ string, body []byte) (Reply, error) {
		if err := faults[string(body)]; err != nil {
			return Reply{}, err
		}
		if string(body) == "panic" {
			panic("a bug")
		}
		return Reply{Body: body}, nil
	}), func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(logs, nil)) })
	nc := dial(t, e)
	for _, row := range []struct{ body, code, text string }{
		{"shape", "page.bad_shape", "k must have 4 dimensions"},
		{"store", "store.unavailable", "the store is away"},
		{"limits", "limit.rate", "slow down"},
		{"plain", "internal", internalText},
		{"panic", "internal", internalText},
		{"fine", "", "fine"},
	} {
		t.Run(row.body, func(t *testing.T) {
			msg := call(t, nc, "kv.acme.v1.compress", []byte(row.body))
			wantReply(t, msg, row.code)
			if got := string(msg.Data); got != row.text {
				t.Errorf("body: got %q, want %q", got, row.text)
			}
		})
	}
	for _, want := range []string{"hunter2", "handler panicked", "server_test.go"} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("log: got %q, want it to contain %q", logs.String(), want)
		}
	}
}

func TestASlowHandlerIsAnsweredAtTheDeadline(t *testing.T) {
	for name, honours := range map[string]bool{"honours its context": true, "ignores its context": false} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			e := startNATS(t, EmbeddedOptions{})
			serve(t, e, handlerFunc(func(ctx context.Context, _ string, body []byte) (Reply, error) {
				if string(body) == "quick" {
					return Reply{}, nil
				}
				if honours {
					<-ctx.Done()
					return Reply{}, ctx.Err()
				}
				<-release
				return Reply{Body: []byte("too late")}, nil
			}), func(c *Config) { c.RequestTimeout, c.Workers = 30*time.Millisecond, 1 })
			nc := dial(t, e)
			wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), CodeDeadline)
			close(release)
			wantReply(t, call(t, nc, "kv.acme.v1.compress", []byte("quick")), "")
		})
	}
}

func TestARequestThatWaitedTooLongIsNotWorkedOn(t *testing.T) {
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		entered <- struct{}{}
		<-leave
		return Reply{}, nil
	}), func(c *Config) { c.RequestTimeout, c.Workers = 50*time.Millisecond, 1 })
	nc := dial(t, e)
	first := ask(nc, "kv.acme.v1.compress", nil)
	<-entered
	second := ask(nc, "kv.acme.v1.compress", nil)
	wantReply(t, receive(t, first), CodeDeadline)
	time.AfterFunc(60*time.Millisecond, func() { close(leave) }) // the second's deadline is over while it waits
	wantReply(t, receive(t, second), CodeDeadline)
	if len(entered) != 0 {
		t.Error("the handler was called for the second request, want not")
	}
}

func TestAReplyThatNATSCannotCarryIsNamed(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{MaxPayload: 4096})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		return Reply{Body: make([]byte, 4097)}, nil
	}), nil)
	msg := call(t, dial(t, e), "kv.acme.v1.get", []byte("object"))
	wantReply(t, msg, CodeReplyTooLarge)
	if !strings.Contains(string(msg.Data), "fewer layers") {
		t.Errorf("sentence: got %q, want a remedy", msg.Data)
	}
}

func TestABodyThatMayBeSparedIsLeftOut(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{MaxPayload: 4096})
	serve(t, e, handlerFunc(func(_ context.Context, _ string, body []byte) (Reply, error) {
		return Reply{Body: append(make([]byte, 100), body...), Spare: true, Header: map[string]string{"Semproxy-Outcome": "exact"}}, nil
	}), nil)
	for size, want := range map[int]int{100: 200, 4096: 0} { // the second fills the message
		msg := call(t, dial(t, e), "kv.acme.v1.compress", make([]byte, size))
		if len(msg.Data) != want || msg.Header.Get(HeaderStatus) != StatusOK || msg.Header.Get("Semproxy-Outcome") != "exact" {
			t.Errorf("a page of %d bytes: got %d bytes, %v, want %d and the headers", size, len(msg.Data), msg.Header, want)
		}
	}
}

func TestReleaseIsCalledOnceAfterTheReply(t *testing.T) {
	released := make(chan struct{}, 2)
	body := []byte("before")
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		return Reply{Body: body, Release: func() { copy(body, "after."); released <- struct{}{} }}, nil
	}), nil)
	if got := string(call(t, dial(t, e), "kv.acme.v1.get", nil).Data); got != "before" {
		t.Errorf("reply: got %q, want the body as it was before Release", got)
	}
	<-released
	if len(released) != 0 {
		t.Error("Release was called twice, want once")
	}
}

func TestMessagesThatMayNotBeAnswered(t *testing.T) {
	var calls atomic.Int32
	metrics := newMetrics()
	e := startNATS(t, EmbeddedOptions{Users: []User{{"acme", "a", "pw"}, {"globex", "b", "pw"}}})
	serve(t, e, handlerFunc(func(context.Context, string, []byte) (Reply, error) {
		calls.Add(1)
		return Reply{Body: []byte("loot")}, nil
	}), func(c *Config) { c.PrivateInboxes, c.MeterProvider = e.PrivateInboxes(), metrics.provider })
	victim := dial(t, e, nats.UserInfo("b", "pw"), nats.CustomInboxPrefix(InboxPrefix("globex")))
	heard, err := victim.SubscribeSync("_INBOX.globex.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Flush(); err != nil {
		t.Fatal(err)
	}
	nc := dial(t, e, nats.UserInfo("a", "pw"), nats.CustomInboxPrefix(InboxPrefix("acme")))
	for name, row := range map[string]struct{ reply, reason string }{
		"no reply subject":              {"", droppedNoReply},
		"another tenant's inbox":        {"_INBOX.globex.x", droppedBadReply},
		"another tenant's page subject": {"kv.globex.v1.compress", droppedBadReply},
		"an inbox that looks alike":     {"_INBOX.acmes.x", droppedBadReply},
	} {
		t.Run(name, func(t *testing.T) {
			before := metrics.sum(t, semconv.MetricDropped, string(semconv.Reason), row.reason)
			msg := &nats.Msg{Subject: "kv.acme.v1.compress", Reply: row.reply, Data: []byte("page")}
			if err := nc.PublishMsg(msg); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the message is counted as dropped", func() bool {
				return metrics.sum(t, semconv.MetricDropped, string(semconv.Reason), row.reason) == before+1
			})
		})
	}
	if got := calls.Load(); got != 0 {
		t.Errorf("handler calls: got %d, want 0", got)
	}
	if n, _, _ := heard.Pending(); n != 0 {
		t.Errorf("the other tenant heard %d messages, want 0", n)
	}
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
}

func TestWithoutPrivateInboxesAReplyNeverGoesIntoThePagePlane(t *testing.T) {
	s := &Server{}
	for subject, want := range map[string]bool{
		"_INBOX.x.y": true, "_R_.abc": true, "kv.other.v1.compress": false, "$SYS.x": false, "$JS.API.x": false,
	} {
		if got := s.mayReply(subject, "acme"); got != want {
			t.Errorf("mayReply(%q): got %v, want %v", subject, got, want)
		}
	}
}

func TestATenantThatIsNoTenantIsRefused(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{})
	serve(t, e, handlerFunc(echo), nil)
	wantReply(t, call(t, dial(t, e), "kv.ten$ant.v1.compress", nil), CodeSubject)
}

func TestConfigurationFaultsComeAllAtOnce(t *testing.T) {
	_, err := New(Config{Workers: -1})
	for _, want := range []string{"Conn", "Handler", "Limiter", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}

func TestStartTwiceIsAnError(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Listen: InProcessOnly})
	s := serve(t, e, handlerFunc(echo), nil)
	if err := s.Start(); err == nil {
		t.Error("second Start: got nil, want an error")
	}
}
