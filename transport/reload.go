package transport

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"time"
)

// Files lists the files that a connection is made with.
func (o ConnectOptions) Files() (all []string) {
	for _, file := range []string{o.CredsFile, o.NKeyFile, o.TokenFile, o.UserFile, o.PasswordFile, o.CAFile, o.CertFile, o.KeyFile} {
		if file != "" {
			all = append(all, file)
		}
	}
	return all
}

// Watch reads the files of a connection every interval and calls changed when one has other content. It returns when ctx
// ends. Content is compared, not times: a Kubernetes secret is swapped by a link.
func (o ConnectOptions) Watch(ctx context.Context, interval time.Duration, changed func(ctx context.Context)) {
	last := o.content()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := o.content(); now != last {
			last = now
			changed(ctx)
		}
	}
}

func (o ConnectOptions) content() (sum [32]byte) {
	h := sha256.New()
	for _, file := range o.Files() {
		text, err := os.ReadFile(file)
		fmt.Fprintf(h, "%s %d %v\n", file, len(text), err)
		h.Write(text)
		clear(text)
	}
	h.Sum(sum[:0])
	return sum
}

// Reconnect makes the server's connection anew, for changed credentials or certificates, without losing pages: it leaves the
// queue group, takes what was already sent to it, reconnects and joins again. Between, senders find other sidecars or are
// told to try again. Pages being worked on go on; their replies wait for the connection.
func (s *Server) Reconnect(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.draining {
		return errors.New("transport: reconnect: the server is not running")
	}
	for _, u := range s.subs {
		_ = u.sub.Drain() // an error: the connection is down, and so is the subscription
	}
	awaitClosed(ctx, s.subs)
	for _, u := range s.subs {
		s.countSlow(u)
		_ = u.sub.Unsubscribe()
		await(ctx, u.watched)
	}
	s.subs = nil
	if s.cfg.Conn.IsConnected() {
		_ = s.cfg.Conn.FlushTimeout(drainGrace)
	}
	if err := s.cfg.Conn.ForceReconnect(); err != nil {
		return fmt.Errorf("transport: reconnect: %w", err)
	}
	return s.subscribeAll() // they follow by themselves when the connection is up
}
