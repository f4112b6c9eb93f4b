package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

var twoTenants = []User{{"acme", "alice", "pw-a"}, {"globex", "gus", "pw-g"}}

// login connects as one of twoTenants and returns the errors that NATS reports for the connection.
func login(t *testing.T, e *EmbeddedServer, u User) (*nats.Conn, <-chan error) {
	t.Helper()
	refused := make(chan error, 8)
	nc := dial(t, e, nats.UserInfo(u.Name, u.Password), nats.CustomInboxPrefix(InboxPrefix(u.Tenant)),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	return nc, refused
}

func wantDenied(t *testing.T, refused <-chan error) {
	t.Helper()
	select {
	case err := <-refused:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("got %v, want a permissions violation", err)
		}
	case <-time.After(patience):
		t.Error("got nothing, want a permissions violation")
	}
}

func TestAUserSpeaksOnlyAsItsTenant(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Users: twoTenants})
	served := make(chan string, 8)
	serve(t, e, handlerFunc(func(_ context.Context, tenant string, _ []byte) (Reply, error) {
		served <- tenant
		return Reply{}, nil
	}), func(c *Config) { c.PrivateInboxes = e.PrivateInboxes() })
	nc, refused := login(t, e, twoTenants[0])

	if err := nc.PublishRequest("kv.globex.v1.compress", "_INBOX.acme.x", nil); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, refused)
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
	if got := <-served; got != "acme" || len(served) != 0 {
		t.Errorf("served: got %s and %d more, want acme alone", got, len(served))
	}
}

func TestAUserHearsOnlyItsOwnInbox(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Users: twoTenants})
	for _, subject := range []string{"_INBOX.globex.>", "_INBOX.>", ">", "kv.acme.v1.compress", "$SYS.>"} {
		t.Run(subject, func(t *testing.T) {
			nc, refused := login(t, e, twoTenants[0])
			if _, err := nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			wantDenied(t, refused)
		})
	}
}

func TestASenderCannotJoinTheQueueGroup(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{})
	refused := make(chan error, 1)
	nc := dial(t, e, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if _, err := nc.QueueSubscribeSync("kv.*.v1.compress", QueueGroup); err != nil {
		t.Fatal(err)
	}
	wantDenied(t, refused)
}

func TestOnlyKnownUsersConnect(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Users: twoTenants})
	for name, opt := range map[string]nats.Option{
		"nobody":         nats.Name("anonymous"),
		"wrong password": nats.UserInfo("alice", "pw-g"),
		"the sidecar's own user over TCP": nats.UserInfo(e.own.name,
			e.own.password),
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := nats.Connect(e.ClientURL(), opt)
			if !errors.Is(err, nats.ErrAuthorization) {
				nc.Close()
				t.Errorf("got %v, want %v", err, nats.ErrAuthorization)
			}
		})
	}
}

func TestUsersAreChecked(t *testing.T) {
	_, err := Embedded(EmbeddedOptions{Users: []User{{"a.b", "n", "secret1"}, {"acme", "", "secret2"}, {"acme", "n", "secret3"}}})
	if err == nil {
		t.Fatal("got nil, want an error")
	}
	for _, want := range []string{"users[0]", "users[1]", "users[2]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want no password in it", err)
	}
}

func TestWarningsNameWhatIsOpen(t *testing.T) {
	for name, row := range map[string]struct {
		opts EmbeddedOptions
		want []string
	}{
		"no users":         {EmbeddedOptions{}, []string{"any tenant"}},
		"users":            {EmbeddedOptions{Users: twoTenants}, nil},
		"in process only":  {EmbeddedOptions{Listen: InProcessOnly}, nil},
		"beyond this host": {EmbeddedOptions{Listen: "0.0.0.0:0", Users: twoTenants}, []string{"beyond loopback"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := startNATS(t, row.opts).Warnings()
			if len(got) != len(row.want) {
				t.Fatalf("got %q, want %q", got, row.want)
			}
			for i, want := range row.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got %q, want %q in it", got[i], want)
				}
			}
		})
	}
}

func TestInProcessOnlyOpensNoPort(t *testing.T) {
	e := startNATS(t, EmbeddedOptions{Listen: InProcessOnly})
	if got := e.ClientURL(); got != "" {
		t.Errorf("URL: got %q, want none", got)
	}
	serve(t, e, handlerFunc(echo), nil)
	nc, err := nats.Connect("", nats.InProcessServer(e))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	wantReply(t, call(t, nc, "kv.acme.v1.compress", nil), "")
}

func TestAnAddressThatCannotBeUsedIsAnErrorAtOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, listen := range map[string]string{
		"taken": taken.Addr().String(), "no port": "127.0.0.1", "not a number": "127.0.0.1:http", "too large": "127.0.0.1:65536",
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			e, err := Embedded(EmbeddedOptions{Listen: listen, Logger: quietLog()})
			if err == nil {
				_ = e.Shutdown(within(t))
				t.Fatal("got nil, want an error")
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v, want at once", took)
			}
		})
	}
	if _, err := Embedded(EmbeddedOptions{MaxPayload: 1 << 30}); err == nil {
		t.Error("MaxPayload of 1 GiB: got nil, want an error")
	}
}

func TestABurstOfLargePagesIsAnswered(t *testing.T) {
	const senders, size = 48, 2 << 20
	e := startNATS(t, EmbeddedOptions{})
	s := serve(t, e, handlerFunc(echo), func(c *Config) { c.Workers = 2 })
	lost := make(chan struct{}, 8)
	s.cfg.Conn.SetDisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} })
	page := make([]byte, size)
	var group sync.WaitGroup
	for range senders {
		nc := dial(t, e)
		group.Go(func() {
			msg, err := nc.Request("kv.acme.v1.compress", page, patience)
			if err != nil || len(msg.Data) != size {
				t.Errorf("got %v, want the page back", err)
			}
		})
	}
	group.Wait()
	if len(lost) != 0 {
		t.Errorf("the sidecar was cut off %d times, want never", len(lost))
	}
}

func TestShutdownSendsWaitingRepliesFirst(t *testing.T) {
	const pages, size = 16, 1 << 20
	e, err := Embedded(EmbeddedOptions{Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	own, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	var served atomic.Int32
	s, err := New(Config{Conn: own, Handler: handlerFunc(func(_ context.Context, _ string, body []byte) (Reply, error) {
		served.Add(1)
		return Reply{Body: body}, nil
	}), Limiter: limiterFunc(unlimited), Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	// A client that does not read leaves its replies waiting in the server.
	raw, err := net.Dial("tcp", strings.TrimPrefix(e.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	body := strings.Repeat("x", size)
	fmt.Fprintf(raw, "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _INBOX.raw.> 1\r\n")
	for i := range pages {
		fmt.Fprintf(raw, "PUB kv.acme.v1.compress _INBOX.raw.%d %d\r\n%s\r\n", i, size, body)
	}
	eventually(t, "replies wait in the server", func() bool {
		n, err := e.pending()
		return err == nil && n > size && served.Load() == pages
	})
	if err := s.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	own.Close()
	done := make(chan error, 1)
	go func() { done <- e.Shutdown(within(t)) }()
	all, err := io.ReadAll(raw)
	if err != nil {
		t.Errorf("read: got %v, want the end of the stream", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: got %v, want nil", err)
	}
	if got := strings.Count(string(all), HeaderStatus+": "+StatusOK); got != pages {
		t.Errorf("replies: got %d, want %d", got, pages)
	}
}

func TestShutdownIsBoundedByItsContext(t *testing.T) {
	e, err := Embedded(EmbeddedOptions{Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Dial("tcp", strings.TrimPrefix(e.ClientURL(), "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	fmt.Fprintf(raw, "CONNECT {\"verbose\":false}\r\nSUB _INBOX.raw 1\r\nPING\r\n")
	own, err := e.Connect()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "bytes wait for a client that does not read", func() bool {
		if err := own.Publish("_INBOX.raw", make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		if err := own.Flush(); err != nil {
			t.Fatal(err)
		}
		n, err := e.pending()
		return err == nil && n > 8<<20
	})
	own.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Shutdown(ctx) }()
	eventually(t, "the server stops", func() bool { return !e.server.Running() })
	raw.Close() // or the server would wait for its write deadline
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestTheServersLogGoesToSlogWithoutPasswords(t *testing.T) {
	logs := &logBuffer{}
	e := startNATS(t, EmbeddedOptions{Users: twoTenants,
		Logger: slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if _, err := nats.Connect(e.ClientURL(), nats.UserInfo("alice", "hunter2")); err == nil {
		t.Fatal("wrong password: got nil, want an error")
	}
	eventually(t, "the refused login is logged", func() bool { return strings.Contains(logs.String(), "authentication error") })
	for _, secret := range []string{"hunter2", "pw-a", e.own.password} {
		if strings.Contains(logs.String(), secret) {
			t.Errorf("log: got a password in %s", logs.String())
		}
	}
}
