package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/shm"
)

// listenShared starts the shared-memory side of a sidecar.
func listenShared(t *testing.T, socket string) *shm.Server {
	t.Helper()
	m, err := shm.Listen(shm.Config{Socket: socket, Instance: "here", MaxPageBytes: 64 << 20, Logger: quietLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func withMemory(m *shm.Server) func(*transport.Config) {
	return func(c *transport.Config) { c.Memory, c.Instance = m, "here" }
}

func shared(socket string) func(*Options) {
	return func(o *Options) { o.SharedMemory = shm.Options{Socket: socket} }
}

func bytesOf(n int) []byte {
	page := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = src.Read(page)
	return page
}

func TestPagesGoThroughSharedMemory(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	socket := filepath.Join(t.TempDir(), "s")
	m := listenShared(t, socket)
	plane := serve(t, own(t, e), handlerFunc(echo), withMemory(m))
	for name, opts := range map[string]shm.Options{"memfd": {Socket: socket}, "file": {Socket: socket, File: true}, "checksum": {Socket: socket, Checksum: true}} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, e.ClientURL(), func(o *Options) { o.SharedMemory = opts })
			for _, by := range []string{"NATS", "socket"} {
				m.Serve(nil) // the descriptor goes over NATS then
				if by == "socket" {
					m.Serve(plane.Accept)
				}
				for _, n := range []int{0, 1, 1 << 20, 20 << 20} { // the last is larger than a NATS message
					page := bytesOf(n)
					got, err := c.Compress(within(t), page)
					if err != nil {
						t.Fatalf("descriptor by %s, page of %d bytes: %v", by, n, err)
					}
					if !got.Shared || got.Attempts != 1 || !bytes.Equal(got.Body, page) {
						t.Errorf("descriptor by %s, page of %d bytes: got %d bytes, shared %v, %d attempts", by, n, len(got.Body), got.Shared, got.Attempts)
					}
				}
			}
			if got, err := c.Get(within(t), "object"); err != nil || got.Shared || string(got.Body) != "object" {
				t.Errorf("get: got %v, %v", got, err)
			}
		})
	}
}

func TestWithoutSharedMemoryPagesGoOverNATS(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	dir := t.TempDir()
	serve(t, own(t, e), handlerFunc(echo), nil)
	c := newClient(t, e.ClientURL(), shared(filepath.Join(dir, "nobody")))
	if got, err := c.Compress(within(t), []byte("page")); err != nil || got.Shared || string(got.Body) != "page" {
		t.Errorf("nobody listens on the socket: got %v, %v", got, err)
	}
	// Another sidecar's socket, whose subjects nobody serves.
	c = newClient(t, e.ClientURL(), shared(filepath.Join(dir, "other")))
	listenShared(t, filepath.Join(dir, "other"))
	if got, err := c.Compress(within(t), []byte("page")); err != nil || got.Shared || string(got.Body) != "page" {
		t.Errorf("the socket's sidecar is not on this NATS: got %v, %v", got, err)
	}
	c = newClient(t, e.ClientURL(), func(o *Options) {
		shared(filepath.Join(dir, "nobody"))(o)
		o.MaxAttempts = 2
	})
	_, err := c.Compress(within(t), make([]byte, 9<<20))
	_ = wantError(t, err, CodeUnreachable, true)
}

func TestErrorsOfPagesInSharedMemory(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	socket := filepath.Join(t.TempDir(), "s")
	m := listenShared(t, socket)
	plane := serve(t, own(t, e), handlerFunc(func(_ context.Context, _ string, body []byte) (transport.Reply, error) {
		if len(body) == 1 {
			return transport.Reply{}, codedError{"page.bad_shape", "one byte"}
		}
		return transport.Reply{Body: make([]byte, 3*len(body))}, nil // more than the room
	}), withMemory(m))
	for _, by := range []string{"NATS", "socket"} {
		if by == "socket" {
			m.Serve(plane.Accept)
		}
		c := newClient(t, e.ClientURL(), shared(socket))
		_, err := c.Compress(within(t), []byte("x"))
		_ = wantError(t, err, "page.bad_shape", false)
		got, err := c.Compress(within(t), make([]byte, 1<<20))
		if err != nil {
			t.Fatalf("descriptor by %s: %v", by, err)
		}
		if len(got.Body) != 3<<20 {
			t.Errorf("a reply larger than its room: got %d bytes, want %d, over NATS", len(got.Body), 3<<20)
		}
	}
}

func TestADescriptorIntoAnotherTenantsRegionIsRefused(t *testing.T) {
	e := startNATS(t, transport.EmbeddedOptions{})
	socket := filepath.Join(t.TempDir(), "s")
	m := listenShared(t, socket)
	seen := make(chan string, 8)
	plane := serve(t, own(t, e), handlerFunc(func(_ context.Context, tenant string, body []byte) (transport.Reply, error) {
		seen <- tenant
		return transport.Reply{Body: body}, nil
	}), withMemory(m))
	nc, err := nats.Connect(e.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	session, err := shm.Dial(within(t), shm.Options{Socket: socket}, func(_ context.Context, instance, challenge string) error {
		reply, err := nc.Request("kv.acme.v1.attach."+instance, []byte(challenge), patience)
		if err == nil && reply.Header.Get(transport.HeaderStatus) != transport.StatusOK {
			err = errors.New(string(reply.Data))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	lease, err := session.Put([]byte("acme's page"), 100)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	for _, c := range []struct{ subject, descriptor, code string }{
		{"kv.globex.v1.compress.here", lease.Descriptor(), shm.CodeDenied},
		{"kv.globex.v1.compress", lease.Descriptor(), shm.CodeDenied},
		{"kv.globex.v1.get", lease.Descriptor(), shm.CodeDenied},
		{"kv.acme.v1.compress.here", "{}", shm.CodeBadDescriptor},
		{"kv.acme.v1.compress.here", lease.Descriptor(), ""},
	} {
		reply, err := nc.RequestMsg(&nats.Msg{Subject: c.subject, Header: nats.Header{transport.HeaderMemory: {c.descriptor}}}, patience)
		if err != nil || reply.Header.Get(transport.HeaderCode) != c.code {
			t.Errorf("%s: got %v %v, want code %q", c.subject, reply, err, c.code)
		}
	}
	// The same by the socket of the other tenant, whatever it says.
	m.Serve(plane.Accept)
	conn, err := net.Dial("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var packet [4096]byte
	hear := func(into any) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(patience))
		n, err := conn.Read(packet[:])
		if err == nil {
			err = json.Unmarshal(packet[:n], into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var hello struct{ Challenge string }
	hear(&hello)
	if reply, err := nc.Request("kv.globex.v1.attach.here", []byte(hello.Challenge), patience); err != nil || reply.Header.Get(transport.HeaderStatus) != transport.StatusOK {
		t.Fatalf("attach: %v, %v", reply, err)
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"op": "page", "id": 1, "headers": map[string]string{
		transport.HeaderMemory: lease.Descriptor(), "Semproxy-Tenant": "acme",
	}}); err != nil {
		t.Fatal(err)
	}
	var got struct{ Headers map[string]string }
	if hear(&got); got.Headers[transport.HeaderCode] != shm.CodeDenied {
		t.Errorf("by the socket: got %v, want code %s", got, shm.CodeDenied)
	}
	if len(seen) != 1 || <-seen != "acme" {
		t.Error("a page reached the handler as another tenant's")
	}
	reply, err := nc.Request("kv.globex.v1.attach.here", []byte("00000000000000000000000000000000"), patience)
	if err != nil || reply.Header.Get(transport.HeaderCode) != shm.CodeBadChallenge {
		t.Errorf("a guessed challenge: got %v %v, want code %s", reply, err, shm.CodeBadChallenge)
	}
}

// Sidecars come and go: every page is answered, by shared memory again as soon as that is there.
func TestNoPageIsLostWhenTheSidecarOfTheSocketEnds(t *testing.T) {
	const pages = 300
	e := startNATS(t, transport.EmbeddedOptions{})
	socket := filepath.Join(t.TempDir(), "s")
	digest := handlerFunc(func(_ context.Context, _ string, body []byte) (transport.Reply, error) {
		sum := sha256.Sum256(body)
		return transport.Reply{Body: sum[:]}, nil
	})
	start := func() (stop func()) {
		m := listenShared(t, socket)
		s := serve(t, own(t, e), digest, withMemory(m))
		m.Serve(s.Accept)
		return func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.Drain(ctx)
			_ = m.Close()
		}
	}
	stop := start()
	c := newClient(t, e.ClientURL(), func(o *Options) { shared(socket)(o); o.MaxAttempts = 1000 })
	var group sync.WaitGroup
	var mu sync.Mutex
	byMemory := 0
	next := make(chan int)
	for range 4 {
		group.Go(func() {
			for i := range next {
				page := makePage(i)
				got, err := c.Compress(within(t), page)
				want := sha256.Sum256(page)
				if err != nil || !bytes.Equal(got.Body, want[:]) {
					t.Errorf("page %d: %v", i, err)
					continue
				}
				mu.Lock()
				if got.Shared {
					byMemory++
				}
				mu.Unlock()
			}
		})
	}
	for i := range pages {
		next <- i
		if i%100 == 50 {
			stop()
			stop = start()
		}
	}
	close(next)
	group.Wait()
	if byMemory == 0 { // how many are under way when a sidecar ends is chance
		t.Errorf("pages by shared memory: got none of %d", pages)
	}
	deadline := time.Now().Add(patience)
	for {
		got, err := c.Compress(within(t), []byte("page"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Shared {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the fast path did not come back")
		}
	}
	stop()
	t.Logf("%d pages, %d by shared memory, 0 lost", pages, byMemory)
}
