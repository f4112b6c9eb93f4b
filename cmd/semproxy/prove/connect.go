package prove

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
)

// proofTarget is how a tenant reaches the sidecar.
type proofTarget struct {
	tenant, url string
	shown       string // the URL without who logs in
	conn        transport.ConnectOptions
}

// proveTarget reads the address and the tenant's credentials from the configuration.
func proveTarget(cfg *config.Config, tenant string) (*proofTarget, error) {
	if !transport.ValidTenant(tenant) {
		return nil, fmt.Errorf("--tenant must be 1 to 64 letters, digits, underscores or hyphens, got %q", tenant)
	}
	t := &proofTarget{tenant: tenant, url: cfg.NATS.URL, conn: sidecar.ConnectOptions(&cfg.NATS, nil)}
	if t.url == "" {
		t.url = "nats://" + cfg.NATS.Embedded.Listen
	}
	t.shown = config.Redact(t.url)
	t.conn.Name, t.conn.Once, t.conn.InboxPrefix = "semproxy prove", true, transport.InboxPrefix(tenant)
	if file := cfg.NATS.Embedded.UsersFile; file != "" {
		users, err := config.LoadUsers(file)
		if err != nil {
			return nil, err
		}
		return t, t.logIn(users, file)
	}
	return t, nil
}

// logIn takes the tenant's first user.
func (t *proofTarget) logIn(users []config.User, file string) error {
	for _, u := range users {
		if u.Tenant != t.tenant {
			continue
		}
		if strings.HasPrefix(u.Password, "$2") {
			return fmt.Errorf("%s: the password of user %s is a hash, which nobody can log in with: give --nats-url nats://USER:PASSWORD@HOST:PORT", file, u.Name)
		}
		at, err := url.Parse(t.url)
		if err != nil {
			return errors.New("--nats-url must be one URL with --nats-embedded-users-file")
		}
		at.User = url.UserPassword(u.Name, u.Password)
		t.url = at.String()
		return nil
	}
	return fmt.Errorf("%s: no user speaks for tenant %s", file, t.tenant)
}

// session is a tenant's connection with the sidecar behind it.
type session struct {
	*client.Client
	most  int64 // bytes of a page that can be sent
	state pipeline.State
	close func()
}

// Pauses between looks for the sidecar, and how often the wait is told.
const (
	proveFirstPause = 100 * time.Millisecond
	proveLongPause  = 2 * time.Second
	proveTell       = 10 * time.Second
)

// await connects, and waits until a sidecar answers the tenant. What it waits for is told to w.
func (t *proofTarget) await(ctx context.Context, w io.Writer) (*session, error) {
	var said string
	var saidAt time.Time
	for pause := proveFirstPause; ; pause = min(2*pause, proveLongPause) {
		s, err := t.attempt(ctx)
		var e *client.Error
		if err == nil || errors.As(err, &e) && !e.Retryable {
			return s, err
		}
		if ctx.Err() != nil && said != "" {
			return nil, fmt.Errorf("%s", said)
		}
		if now := time.Now(); err.Error() != said || now.Sub(saidAt) >= proveTell {
			said, saidAt = err.Error(), now
			fmt.Fprintf(w, "semproxy prove: waiting for the sidecar at %s: %s\n", t.shown, said)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%s", said)
		}
	}
}

// attempt asks for the tenant's state once.
func (t *proofTarget) attempt(ctx context.Context) (*session, error) {
	nc, err := transport.Connect(t.url, t.conn)
	if err != nil {
		return nil, err
	}
	c, err := client.New(nc, client.Options{Tenant: t.tenant, TracerProvider: noop.NewTracerProvider()})
	if err != nil {
		nc.Close()
		return nil, err
	}
	s := &session{Client: c, close: func() {
		c.Close()
		nc.Close()
	}}
	ask, err := client.New(nc, client.Options{Tenant: t.tenant, MaxAttempts: 1, Timeout: 5 * time.Second, TracerProvider: noop.NewTracerProvider()})
	if err == nil {
		defer ask.Close()
		var reply *client.Result
		if reply, err = ask.Stat(ctx); err == nil {
			err = json.Unmarshal(reply.Body, &s.state)
		}
		if err == nil {
			s.most, err = ask.MaxPage(ctx)
		}
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
