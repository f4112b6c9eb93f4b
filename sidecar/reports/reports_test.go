package reports

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semproxy/semproxy/proxy/recent"
)

// receiving is a request plane's end that runs.
type receiving struct {
	*Receiver
	got  chan *Report
	stop func()
}

func receive(t *testing.T, path string, change func(*Receiver)) *receiving {
	t.Helper()
	f := &receiving{got: make(chan *Report, 4*waiting)}
	var err error
	if f.Receiver, err = Listen(path, func(r *Report) { f.got <- r }, Options{}); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(f.Receiver)
	}
	f.stop = running(t, f.Run)
	return f
}

// send is a page plane's end that runs.
func send(t *testing.T, path string) (s *Sender, stop func()) {
	t.Helper()
	s, err := NewSender(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s, running(t, s.Run)
}

func running(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if cancel(); !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("20 s passed before %s", what)
		}
	}
}

// next is the next report; those are skipped whose sequence begins otherwise.
func (f *receiving) next(t *testing.T, sequence string) *Report {
	t.Helper()
	for {
		select {
		case r := <-f.got:
			if strings.HasPrefix(r.Page.Sequence, sequence) {
				return r
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no report of %s came", sequence)
		}
	}
}

func report(sequence string) *Report {
	return &Report{Tenant: "acme", Model: "m", Page: recent.Page{Sequence: sequence, Outcome: "compressed", Tokens: 640, PerLayer: []recent.Layer{{Layer: 3, Tokens: 640, Ratio: 0.5}}}}
}

func TestReportsComeWhoeverStartsFirstAndAfterEitherHasGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	s, stop := send(t, path) // nobody listens yet
	s.Send(report("early"))
	f := receive(t, path, nil)
	if r := f.next(t, "early"); r.Tenant != "acme" || r.Model != "m" || r.Page.Tokens != 640 || len(r.Page.PerLayer) != 1 || r.Page.PerLayer[0].Ratio != 0.5 {
		t.Errorf("got %+v, want what was sent, with its layers", r)
	}
	if !s.Connected() || !f.Connected() {
		t.Errorf("connected: got %v, %v, want both ends to know", s.Connected(), f.Connected())
	}

	f.stop()
	until(t, "the sender knows that the other has gone", func() bool { return !s.Connected() })
	s.Send(report("meanwhile"))
	f = receive(t, path, nil)
	f.next(t, "meanwhile")

	stop()
	until(t, "the receiver knows that the other has gone", func() bool { return !f.Connected() })
	s, _ = send(t, path)
	s.Send(report("anew"))
	f.next(t, "anew")
}

func TestTheOldestReportsAreDroppedAndCountedWhereNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	s, _ := send(t, path)
	const more = 500
	start := time.Now()
	for i := range waiting + more {
		s.Send(report(fmt.Sprint("page-", i)))
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("sending to nobody took %v: a page waited", took)
	}
	if s.Dropped() != more {
		t.Errorf("got %d dropped, want %d", s.Dropped(), more)
	}
	f := receive(t, path, nil)
	if r := f.next(t, ""); r.Page.Sequence != fmt.Sprint("page-", more) {
		t.Errorf("got %s first, want the oldest that was kept", r.Page.Sequence)
	}
}

func TestASlowReaderDropsReportsAndHoldsUpNoPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	slow, after, read := make(chan struct{}), make(chan struct{}), 0
	f, err := Listen(path, func(r *Report) {
		<-slow
		if read++; r.Page.Sequence == "after" {
			close(after)
		}
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	running(t, f.Run)
	s, _ := send(t, path)
	until(t, "it is connected", s.Connected)
	const sent = 10 * waiting
	longest := time.Duration(0)
	for i := range sent {
		start := time.Now()
		s.Send(report(fmt.Sprint("page-", i)))
		longest = max(longest, time.Since(start))
	}
	if s.Dropped() == 0 || longest > time.Second {
		t.Errorf("got %d dropped, and %v for the slowest, want some dropped and nobody held up", s.Dropped(), longest)
	}
	close(slow)
	until(t, "the rest is under way", func() bool { return len(s.queue) == 0 })
	s.Send(report("after"))
	select {
	case <-after:
	case <-time.After(20 * time.Second):
		t.Fatal("the reader is quick again, and nothing more came")
	}
	if uint64(read)+s.Dropped() != sent+1 {
		t.Errorf("got %d read and %d dropped, want %d together", read, s.Dropped(), sent+1)
	}
	t.Logf("%d reports to a reader that stands still: %d dropped, the others read afterwards, the slowest call took %v", sent, s.Dropped(), longest)
}

func TestAStrangerIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	f := receive(t, path, func(r *Receiver) {
		r.allowed = func(*net.UnixConn) error { return mayReport(1, os.Geteuid()+1, os.Geteuid()) }
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a socket for its owner alone", info.Mode(), err)
	}
	s, err := NewSender(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.dial(t.Context()); err == nil || f.Connected() {
		t.Errorf("got %v, want no greeting for another user's process", err)
	}
	for _, c := range []struct {
		uid, own int
		ok       bool
	}{{1000, 1000, true}, {0, 1000, true}, {1001, 1000, false}, {1000, 0, false}} {
		if err := mayReport(1, c.uid, c.own); (err == nil) != c.ok {
			t.Errorf("user %d to a process of user %d: got %v", c.uid, c.own, err)
		}
	}
}

func TestWhatIsNoReportEndsTheConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	f := receive(t, path, nil)
	for name, line := range map[string]string{
		"no JSON": "hello\n", "no tenant": "{}\n", "a bad decision": `{"tenant":"acme","decision":{"plan":{"method":"magic"}}}` + "\n",
		"too long": strings.Repeat("x", maxLine+1),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSender(path, Options{})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := s.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte(line))
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			var timeout net.Error
			if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("got %d bytes, %v, want the end of the connection", n, err)
			}
		})
	}
	if len(f.got) > 0 {
		t.Errorf("got %d reports, want none", len(f.got))
	}
}

func TestAReportThatIsTooLongIsDroppedAndTheNextComes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "planes.sock")
	f := receive(t, path, nil)
	s, _ := send(t, path)
	s.Send(report(strings.Repeat("x", maxLine)))
	s.Send(report("next"))
	f.next(t, "next")
	if s.Dropped() != 1 {
		t.Errorf("got %d dropped, want 1", s.Dropped())
	}
}

func TestTheSocketTakesThePlaceOfADeadOneAndOfNothingElse(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a process that is killed leaves it
	_ = l.Close()
	f := receive(t, dead, nil)
	s, _ := send(t, dead)
	s.Send(report("a"))
	f.next(t, "a")

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{file: "no socket", dead: "another process", filepath.Join(dir, "none", "x.sock"): "no such file"} {
		if r, err := Listen(path, nil, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want %q", path, r, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("got %q, %v, want the file as it was", text, err)
	}
}
