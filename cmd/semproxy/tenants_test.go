package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/client"
	"github.com/semproxy/semproxy/transport/page"
	"github.com/semproxy/semproxy/transport/shm"
)

// errorCount is semproxy_errors_total of a code and tenant.
func errorCount(t *testing.T, s *sidecartest.Sidecar, code, tenant string) (n float64) {
	t.Helper()
	resp, err := http.Get(s.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^semproxy_errors_total\{.*\} .*$`).FindAllString(string(text), -1) {
		if strings.Contains(line, `semproxy_error_code="`+code+`"`) && strings.Contains(line, `semproxy_tenant="`+tenant+`"`) {
			v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
			if err != nil {
				t.Fatal(err)
			}
			n += v
		}
	}
	return n
}

// Two tenants on one NATS system, of which globex is hostile: it reads nothing of acme's, suppresses nothing, and each
// attempt is refused with its code and counted.
func TestNoTenantIsNearAnother(t *testing.T) {
	for _, mode := range []string{"accounts", "users"} {
		t.Run(mode, func(t *testing.T) { hostileTenant(t, configured(t, mode, 1)) })
	}
}

// neighbours are two tenants of one sidecar, acme and the hostile globex.
type neighbours struct {
	system       *natsSystem
	s            *sidecartest.Sidecar
	acme, globex *client.Client
	evil         *nats.Conn // globex's
	mine         []byte     // a page of acme's
	object       string     // what became of it
}

func hostileTenant(t *testing.T, system *natsSystem) {
	socket := filepath.Join(t.TempDir(), "shm")
	s := sidecartest.Start(t, func(c *config.Config) {
		c.NATS.URL, c.NATS.NKeyFile, c.NATS.PrivateInboxes = system.url, filepath.Join(system.dir, "SEMPROXY.nk"), system.private
		c.Jobs.Enabled = true
		if runtime.GOOS == "linux" {
			c.SharedMemory.Socket = socket
		}
	})
	sidecartest.Until(t, "jobs are taken", func() bool { return s.TakesJobs(t.Context()) == nil })
	n := &neighbours{system: system, s: s, acme: system.client(t, "acme", client.Options{}), globex: system.client(t, "globex", client.Options{MaxAttempts: 2}),
		evil: system.connect(t, "globex"), mine: sidecartest.Edited(t, func(p *page.Page) { p.Sequence = "acme's" })}
	heard := n.listen(t)
	reply, err := n.acme.Compress(t.Context(), n.mine)
	if err != nil {
		t.Fatal(err)
	}
	n.object = reply.Header.Get(sidecar.HeaderObject)

	n.forgeSubjects(t)
	n.guessObjects(t)
	n.forgeHeaders(t)
	n.takeMessageIDs(t)
	if runtime.GOOS == "linux" {
		foreignDescriptor(t, s, system, n.evil, socket, n.mine)
	}
	if heard.Load() != 0 {
		t.Errorf("globex heard %d messages, want 0", heard.Load())
	}
}

// listen subscribes globex to everything and counts what it hears of acme's. In accounts ">" is one's own account: what globex sends
// itself. As users it is refused.
func (n *neighbours) listen(t *testing.T) *atomic.Int64 {
	t.Helper()
	heard := new(atomic.Int64)
	acmes := func(m *nats.Msg) bool {
		if strings.Contains(string(m.Data), "acme's") {
			return true
		}
		return n.system.private && !strings.HasPrefix(m.Subject, "_INBOX.globex.") && !strings.HasPrefix(m.Subject, "kv.globex.v1.done.")
	}
	for _, subject := range []string{">", "kv.>", "kv.acme.>", "kv.acme.v1.done.*", "_INBOX.>", "_INBOX.acme.>", "semproxy.>", "$JS.>", "$SYS.>"} {
		if _, err := n.evil.Subscribe(subject, func(m *nats.Msg) {
			if acmes(m) {
				heard.Add(1)
				t.Errorf("globex heard %s", m.Subject)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.evil.QueueSubscribe("kv.*.v1.compress", transport.QueueGroup, func(m *nats.Msg) {
		if acmes(m) {
			heard.Add(1)
		}
	}); err != nil {
		t.Fatal(err)
	}
	_ = n.evil.FlushTimeout(5 * time.Second)
	return heard
}

// forgeSubjects sends as globex to acme's subjects.
func (n *neighbours) forgeSubjects(t *testing.T) {
	t.Helper()
	for _, op := range []string{"compress", "get", "stat", "job", "result", "compress." + n.s.InstanceName(), "attach." + n.s.InstanceName(), "done.x"} {
		limited, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if m, err := n.evil.RequestWithContext(limited, "kv.acme.v1."+op, []byte("evil")); err == nil {
			t.Errorf("kv.acme.v1.%s as globex: got %v %q, want no reply", op, m.Header, m.Data)
		}
		cancel()
	}
}

// wantNotFound reports it unless a tenant is told that the other's object is not there.
func wantNotFound(t *testing.T, who string, c *client.Client, object string) {
	t.Helper()
	var ce *client.Error
	if _, err := c.Get(t.Context(), object); !errors.As(err, &ce) || ce.Code != "not_found" {
		t.Errorf("%s gets another tenant's object: %v, want not_found", who, err)
	}
}

// guessObjects asks as globex for acme's object, whose name is no secret.
func (n *neighbours) guessObjects(t *testing.T) {
	t.Helper()
	before := errorCount(t, n.s, "not_found", "globex")
	wantNotFound(t, "globex", n.globex, n.object)
	if got := errorCount(t, n.s, "not_found", "globex"); got != before+1 {
		t.Errorf("not_found of globex was counted %v times, want once more than %v", got, before)
	}
}

// forgeHeaders sends a page of globex's that says to be acme's: it is globex's whatever it says.
func (n *neighbours) forgeHeaders(t *testing.T) {
	t.Helper()
	forged := &nats.Msg{Subject: "kv.globex.v1.compress", Data: sidecartest.Edited(t, func(p *page.Page) { p.Sequence = "globex's" }), Header: nats.Header{
		"Nats-Request-Info": {`{"acc":"acme","user":"acme"}`}, "Semproxy-Tenant": {"acme"}, "Tenant": {"acme"}, "Semproxy-Status": {"ok"},
	}}
	m, err := n.evil.RequestMsgWithContext(t.Context(), forged)
	if err != nil || m.Header.Get(transport.HeaderStatus) != transport.StatusOK || m.Header.Get(sidecar.HeaderObject) == n.object {
		t.Fatalf("forged headers: got %v, %v, want an object of globex's own", m, err)
	}
	wantNotFound(t, "acme", n.acme, m.Header.Get(sidecar.HeaderObject))
}

// takeMessageIDs takes the id of acme's job first, and then asks for replies into acme's subjects: neither changes acme's outcome.
func (n *neighbours) takeMessageIDs(t *testing.T) {
	t.Helper()
	ctx, id := t.Context(), "the-same"
	if _, err := n.globex.Submit(ctx, id, sidecartest.Page(t, "kjv_facts")); err != nil {
		t.Error(err)
	}
	job, err := n.acme.Submit(ctx, id, n.mine)
	if err != nil || job.Duplicate {
		t.Fatalf("acme's job of the same id: got %+v, %v, want it kept", job, err)
	}
	if got, err := n.acme.Wait(ctx, id); err != nil || sidecartest.About(got.Body, "acme's") != nil {
		t.Errorf("acme's job: %v, %v", err, sidecartest.About(got.Body, "acme's"))
	}
	for _, subject := range []string{"kv.acme.v1.job", "kv.acme.v1.compress", "kv.acme.v1.done.the-same", "semproxy.jobs.acme", "_INBOX.acme.x"} {
		for _, op := range []string{"job", "compress", "stat", "result"} {
			if err := n.evil.PublishRequest("kv.globex.v1."+op, subject, []byte("evil")); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = n.evil.FlushTimeout(5 * time.Second)
	if got, err := n.acme.Wait(ctx, id); err != nil || sidecartest.About(got.Body, "acme's") != nil {
		t.Errorf("acme's outcome was changed: %v", err)
	}
	if state, err := n.acme.Stat(ctx); err != nil || len(state.Body) == 0 {
		t.Errorf("stat: %v", err)
	}
}

// foreignDescriptor sends acme's descriptor as globex.
func foreignDescriptor(t *testing.T, s *sidecartest.Sidecar, system *natsSystem, evil *nats.Conn, socket string, blob []byte) {
	t.Helper()
	own := system.connect(t, "acme")
	session, err := shm.Dial(t.Context(), shm.Options{Socket: socket}, func(ctx context.Context, instance, challenge string) error {
		m, err := own.RequestWithContext(ctx, "kv.acme.v1.attach."+instance, []byte(challenge))
		if err == nil && m.Header.Get(transport.HeaderStatus) != transport.StatusOK {
			err = errors.New(string(m.Data))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	lease, err := session.Put(blob, int64(2*len(blob)))
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	send := func(nc *nats.Conn, tenant string) *nats.Msg {
		t.Helper()
		m, err := nc.RequestMsg(&nats.Msg{Subject: "kv." + tenant + ".v1.compress." + session.Instance(),
			Header: nats.Header{transport.HeaderMemory: {lease.Descriptor()}}}, 20*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	before := errorCount(t, s, shm.CodeDenied, "globex")
	if m := send(evil, "globex"); m.Header.Get(transport.HeaderCode) != shm.CodeDenied || m.Header.Get(transport.HeaderMemory) != "" {
		t.Errorf("acme's descriptor from globex: got %v, want code %s", m.Header, shm.CodeDenied)
	}
	if got := errorCount(t, s, shm.CodeDenied, "globex"); got != before+1 {
		t.Errorf("%s of globex was counted %v times, want once more than %v", shm.CodeDenied, got, before)
	}
	m := send(own, "acme")
	if body, err := lease.Reply(m.Header.Get(transport.HeaderMemory)); err != nil || sidecartest.About(body, "acme's") != nil {
		t.Errorf("acme's own descriptor: %v, %v", m.Header, err)
	}
}

func TestAClusterWithTLSKeepsJobsThroughTheLossOfAServer(t *testing.T) {
	tls := newAuthority(t, t.TempDir())
	cert, key := tls.issue()
	ca := filepath.Join(tls.dir, "ca.crt")
	system := configured(t, "accounts", 3, "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca)
	system.ca = ca
	s := sidecartest.Start(t, func(c *config.Config) {
		c.NATS.URL, c.NATS.NKeyFile, c.NATS.TLS.CAFile = system.url, filepath.Join(system.dir, "SEMPROXY.nk"), ca
		c.Jobs.Enabled, c.Jobs.Replicas, c.Jobs.AckWait = true, 3, policy.Duration(2*time.Second)
	})
	sidecartest.Until(t, "jobs are taken", func() bool { return s.TakesJobs(t.Context()) == nil })
	c := system.client(t, "acme", client.Options{Timeout: 5 * time.Second, MaxAttempts: 200, Backoff: client.Backoff{First: 20 * time.Millisecond, Max: 200 * time.Millisecond}})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	pages := sidecartest.Distinct(t, 24)
	ids := make([]string, len(pages))
	for i, p := range pages {
		if i == len(pages)/2 {
			system.nodes[0].kill()
		}
		job, err := c.Submit(ctx, "", p)
		if err != nil {
			t.Fatalf("job %d: %v", i, err)
		}
		ids[i] = job.ID
	}
	for i, id := range ids {
		got, err := c.Wait(ctx, id)
		if err != nil {
			t.Fatalf("job %d: %v", i, err)
		}
		if err := sidecartest.About(got.Body, "page-"+strconv.Itoa(i)); err != nil {
			t.Errorf("job %d: %v", i, err)
		}
	}
}
