package forward_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

func TestDrainFinishesWhatIsUnderWayAndCutsWhatTakesTooLong(t *testing.T) {
	e := startEngine(t, false)
	s := startProxy(t, e.URL, nil)
	done := make(chan answer, 1)
	ask := func(text string) {
		go func() { done <- s.call(t, "POST", "/v1/chat/completions", acmeKey, chat(text, 1, "")) }()
	}
	ask("wait")
	until(t, func() bool { return len(e.requests()) == 1 })
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(context.Background()) }()
	until(t, func() bool { // no new connection is taken
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	e.free <- struct{}{}
	if got := <-done; got.status != 200 || got.err != nil {
		t.Errorf("got %d, %v, want the answer whole", got.status, got.err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: got %v, want nil", err)
	}

	s = startProxy(t, e.URL, nil)
	ask("hang")
	until(t, func() bool { return len(e.requests()) == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); err == nil {
		t.Error("Drain of a request that hangs: got nil, want an error: it was cut")
	}
	<-e.hung
	if got := <-done; got.err == nil {
		t.Errorf("got %d, want the request cut", got.status)
	}
}
