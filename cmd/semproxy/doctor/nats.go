package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// NATS is the page plane's server.
type NATS struct {
	URL     string
	Shown   string // URL without credentials
	Connect transport.ConnectOptions
	Jobs    bool  // durable jobs are on
	Queue   int64 // bytes of jobs that each tenant may have waiting
	Tenants int
}

// goodPayload is what the manual asks of max_payload.
const goodPayload = 8 << 20

// NATS connects as the sidecar does, and looks at what it may do there.
func (r *Report) NATS(ctx context.Context, n NATS) {
	for u := range strings.SplitSeq(n.URL, ",") {
		host := hostOf(u)
		conn, err := (&net.Dialer{Timeout: 3 * time.Second}).DialContext(ctx, "tcp", host)
		if err != nil {
			what, remedy, ok := Network(host, err)
			if !ok {
				what, remedy = err.Error(), "check nats.url"
			}
			r.Fail("nats.connect", what, remedy+" (nats.url)")
			return
		}
		_ = conn.Close()
	}
	n.Connect.Once, n.Connect.Name = true, "semproxy doctor"
	conn, err := transport.Connect(n.URL, n.Connect)
	if err != nil {
		r.refused(n, err)
		return
	}
	defer conn.Close()
	rtt, _ := conn.RTT()
	r.OK("nats.connect", fmt.Sprintf("connected to %s, nats-server %s, round trip %s", n.Shown, conn.ConnectedServerVersion(), rtt.Round(10*time.Microsecond)))
	r.subjects(conn)
	if m := conn.MaxPayload(); m < goodPayload {
		r.Warn("nats.max_payload", fmt.Sprintf("the server takes messages of %s at most: larger pages cannot be sent, and only their senders are told", size(m)),
			"set max_payload: 8MB in the server's configuration (semproxy nats-config writes it)")
	} else {
		r.OK("nats.max_payload", size(m))
	}
	if n.Jobs {
		r.jobs(ctx, conn, n)
	}
}

func (r *Report) refused(n NATS, err error) {
	host := hostOf(n.URL)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), strings.Contains(strings.ToLower(err.Error()), "authoriz"),
		strings.Contains(strings.ToLower(err.Error()), "authentication"):
		r.Fail("nats.auth", "the server at "+host+" does not let the sidecar in: "+err.Error(), "check nats.credsFile or nats.nkeyFile, and that the server's configuration has that user (semproxy nats-config writes both)")
	default:
		what, remedy, ok := Network(host, err)
		if !ok {
			what, remedy = err.Error(), "check nats.url, nats.tls and the server's log"
		}
		r.Fail("nats.connect", what, remedy)
	}
}

// subjects tries what the sidecar subscribes to and publishes on. A plain subscription takes no page from the sidecars' queue.
func (r *Report) subjects(conn *nats.Conn) {
	var denied []string
	for _, op := range []string{"compress", "get", "stat", "*"} {
		subject := "kv.*.v1." + op
		if op == "*" {
			subject += ".doctor"
		}
		sub, err := conn.SubscribeSync(subject)
		if err == nil {
			err = errors.Join(conn.FlushTimeout(5*time.Second), violation(conn, subject))
			_ = sub.Unsubscribe()
		}
		if err != nil {
			denied = append(denied, subject)
		}
	}
	if len(denied) > 0 {
		r.Fail("nats.subscribe", "the sidecar's user may not subscribe to "+strings.Join(denied, ", ")+": it would get no page",
			`give it the permission subscribe: [ "kv.>", "_INBOX.>" ], or the account's exports (semproxy nats-config writes them)`)
		return
	}
	reply := nats.NewInbox()
	if err := errors.Join(conn.Publish(reply, nil), conn.FlushTimeout(5*time.Second), violation(conn, reply)); err != nil {
		r.Fail("nats.publish", "the sidecar's user may not publish to inboxes: no sender would get its answer", `give it the permission publish: [ "_INBOX.>" ]`)
		return
	}
	r.OK("nats.permissions", "it may subscribe to kv.*.v1.* and answer")
}

// violation is the server's complaint about a subject, which comes before the answer to a flush.
func violation(conn *nats.Conn, subject string) error {
	if err := conn.LastError(); err != nil && strings.Contains(err.Error(), "ermissions") && strings.Contains(err.Error(), subject) {
		return err
	}
	return nil
}

func (r *Report) jobs(ctx context.Context, conn *nats.Conn, n NATS) {
	js, err := jetstream.New(conn)
	if err != nil {
		r.Fail("nats.jetstream", err.Error(), "")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	info, err := js.AccountInfo(ctx)
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount), errors.Is(err, nats.ErrNoResponders):
		r.Fail("nats.jetstream", "jobs.enabled is set, but the server has no JetStream for this account", "add jetstream { store_dir: ... } to the server's configuration and jetstream: enabled to the account, or set jobs.enabled: false")
		return
	case err != nil:
		r.Fail("nats.jetstream", "JetStream does not answer: "+err.Error(), `give the sidecar's user the permissions publish: [ "$JS.API.>", "$JS.ACK.>" ]`)
		return
	}
	need := n.Queue * int64(max(n.Tenants, 1))
	if most := info.Limits.MaxStore; most > 0 && most < need {
		r.Warn("nats.jetstream", fmt.Sprintf("JetStream may store %s, and %d tenants may have %s waiting", size(most), n.Tenants, size(need)), "raise max_file, or lower jobs.maxBytes or the tenants' queuedBytes")
		return
	}
	r.OK("nats.jetstream", fmt.Sprintf("%d streams, %s stored", info.Streams, size(int64(info.Store))))
}

// hostOf is host:port of a URL, of the first where there are several.
func hostOf(raw string) string {
	raw, _, _ = strings.Cut(raw, ",")
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return "nats.url"
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "4222")
	}
	return u.Host
}

func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
