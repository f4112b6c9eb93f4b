package transport

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Kinds of what NATS refuses, for Config.Refused and ConnectOptions.Refused.
const (
	RefusedSubscribe = "denied_subscribe" // this user may not hear requests
	RefusedPublish   = "denied_publish"   // this user may not send replies
	RefusedLogin     = "denied_login"
	RefusedPayload   = "max_payload"
	RefusedLameDuck  = "lame_duck" // the server is about to stop
	RefusedAway      = "away"
	refusedOther     = "other"
)

// kindOf classifies an error of a connection.
func kindOf(err error) string {
	text := strings.ToLower(err.Error())
	switch {
	case errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(text, "subscription"):
		return RefusedSubscribe
	case errors.Is(err, nats.ErrPermissionViolation):
		return RefusedPublish
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired),
		strings.Contains(text, "authorization violation"):
		return RefusedLogin
	case errors.Is(err, nats.ErrMaxPayload), strings.Contains(text, "maximum payload"):
		return RefusedPayload
	}
	return refusedOther
}

// faults remember which subscriptions NATS has refused.
type faults struct {
	mu         sync.Mutex
	denied     map[string]error // by subject
	reconnects uint64           // of the connection that denied them: a new one is asked again
	looked     time.Time        // when the server was last asked for its max_payload
	payload    int64            // the last that the connection was made anew for
}

var deniedSubject = regexp.MustCompile(`Subscription to "(\S+)"`)

// onError takes in what the connection reports by itself.
func (s *Server) onError(nc *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) { // counted by the subscription's watcher
		return
	}
	kind := kindOf(err)
	if kind == RefusedSubscribe {
		subject := ""
		if m := deniedSubject.FindStringSubmatch(err.Error()); m != nil {
			subject = m[1]
		}
		s.faults.mu.Lock()
		if n := nc.Stats().Reconnects; n != s.faults.reconnects || s.faults.denied == nil {
			s.faults.denied, s.faults.reconnects = map[string]error{}, n
		}
		s.faults.denied[subject] = err
		s.faults.mu.Unlock()
	}
	if sub != nil {
		err = fmt.Errorf("subscription to %s: %w", sub.Subject, err)
	}
	s.cfg.Refused(kind, withoutURL(err))
}

// Confirm asks the NATS server, and says why requests do not reach this server: it is not connected, or its user may not
// subscribe. Permissions that were given meanwhile are taken up.
func (s *Server) Confirm(ctx context.Context) error {
	if !s.cfg.Conn.IsConnected() {
		return errNotConnected
	}
	if err := s.cfg.Conn.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("the NATS server does not answer: %w", err)
	}
	return s.Denied()
}

var errNotConnected = errors.New("not connected to NATS")

// Denied says which subscriptions NATS has refused on this connection; nil: none.
func (s *Server) Denied() error {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if s.faults.reconnects != s.cfg.Conn.Stats().Reconnects {
		return nil
	}
	all := make([]error, 0, len(s.faults.denied))
	for _, err := range s.faults.denied {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// Resubscribe asks again for the subscriptions that NATS has refused.
func (s *Server) Resubscribe() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.draining {
		return nil
	}
	s.faults.mu.Lock()
	denied := s.faults.denied
	s.faults.denied = nil
	s.faults.mu.Unlock()
	for i, u := range s.subs {
		if denied[u.subject] == nil {
			continue
		}
		_ = u.sub.Unsubscribe()
		<-u.closed
		<-u.watched
		again, err := s.subscribe(u.subject)
		if err != nil {
			return fmt.Errorf("transport: subscribe to %s: %w", u.subject, err)
		}
		s.subs[i] = again
	}
	return nil
}

// lookEvery is how often at most the server is asked whether it takes longer messages than it said when it was connected to.
const lookEvery = time.Minute

// roomier reports whether the NATS server by now takes messages of so many bytes, and makes the connection anew if it does:
// a server that was reloaded tells its new max_payload to new connections only.
func (s *Server) roomier(ctx context.Context, bytes int) bool {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	nc := s.cfg.Conn
	if int64(bytes) <= nc.MaxPayload() {
		return true // another reply has found out
	}
	if time.Since(s.faults.looked) < lookEvery {
		return false
	}
	s.faults.looked = time.Now()
	if most, err := maxPayload(ctx, nc.ConnectedAddr()); err == nil && most < int64(bytes) {
		return false
	}
	before := nc.Stats().Reconnects
	if err := s.Reconnect(ctx); err != nil {
		s.cfg.Logger.WarnContext(ctx, "nats_reconnect_failed", "error", err)
		return false
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for nc.Stats().Reconnects == before || !nc.IsConnected() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	s.cfg.Logger.InfoContext(ctx, "nats_max_payload", "bytes", nc.MaxPayload())
	return int64(bytes) <= nc.MaxPayload()
}

// TakeUpPayload asks the NATS server for its max_payload, and makes the connection anew where a reload has changed it: the server
// would else end the connection at the first reply over a lower one.
func (s *Server) TakeUpPayload(ctx context.Context) error {
	nc := s.cfg.Conn
	if !nc.IsConnected() {
		return nil
	}
	most, err := maxPayload(ctx, nc.ConnectedAddr())
	if err != nil || most == nc.MaxPayload() { // whoever does not tell, as one that begins with TLS, is asked again
		return nil
	}
	s.faults.mu.Lock()
	again := s.faults.payload == most // behind one address servers differ, and another was come to: let it be
	s.faults.payload = most
	s.faults.mu.Unlock()
	if again {
		return nil
	}
	s.cfg.Logger.WarnContext(ctx, "nats_max_payload_changed", "before", nc.MaxPayload(), "bytes", most)
	return s.Reconnect(ctx)
}

// maxPayload is what the server at an address tells each new connection first.
func maxPayload(ctx context.Context, address string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(end)
	}
	line, err := bufio.NewReaderSize(conn, 64<<10).ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	var info struct {
		MaxPayload int64 `json:"max_payload"`
	}
	text, ok := strings.CutPrefix(string(line), "INFO ")
	if !ok {
		return 0, errors.New("not a NATS server")
	}
	err = json.Unmarshal([]byte(text), &info)
	return info.MaxPayload, err
}
