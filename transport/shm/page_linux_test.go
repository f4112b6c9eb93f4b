package shm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/semproxy/semproxy/transport"
)

// taken is a page that the plane was given.
type taken struct {
	tenant, descriptor string
	answer             func(*nats.Msg) error
}

// plane keeps the pages that it is given.
func (f *fixture) plane() chan taken {
	pages := make(chan taken, 1024)
	f.Serve(func(tenant string, header nats.Header, answer func(*nats.Msg) error) {
		pages <- taken{tenant, header.Get(transport.HeaderMemory), answer}
	})
	return pages
}

func ok(text string) *nats.Msg {
	return &nats.Msg{Header: nats.Header{transport.HeaderStatus: {transport.StatusOK}, "Semproxy-Object": {text}}}
}

func (a answer) header(key string) string { return a.Headers[key] }

func TestPagesByTheSocketAreAnsweredInAnyOrder(t *testing.T) {
	f := serve(t, nil)
	pages := f.plane()
	s := f.dial(t, "acme", Options{})
	var group sync.WaitGroup
	for i := range 2 {
		group.Go(func() {
			l, err := s.Put(randomPage(uint64(i), 100), 100)
			if err != nil {
				t.Error(err)
				return
			}
			defer l.Release()
			m, err := s.Exchange(t.Context(), l, nats.Header{"traceparent": {"00-x"}})
			if err != nil || m.Header.Get("Semproxy-Object") != l.Descriptor() {
				t.Errorf("page %d: got %v, %v, want the reply of its own descriptor", i, m, err)
			}
		})
	}
	first, second := <-pages, <-pages
	for _, p := range []taken{second, first} {
		if p.tenant != "acme" {
			t.Errorf("tenant: got %q, want acme", p.tenant)
		}
		if err := p.answer(ok(p.descriptor)); err != nil {
			t.Error(err)
		}
	}
	group.Wait()
	// Demands have their answers in between.
	l, err := s.Put([]byte("page"), 10)
	if err != nil {
		t.Fatal(err)
	}
	l.Abandon()
}

func TestPagesThatTheSocketRefuses(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxPages = 2 })
	r := f.raw(t)
	page := func(id int) string {
		return fmt.Sprintf(`{"op":"page","id":%d,"headers":{"Semproxy-Shm":"{}"}}`, id)
	}
	if a := r.say(page(7)); a.ID != 7 || a.header(transport.HeaderCode) != CodeNotAttached || a.Body == "" {
		t.Errorf("before the tenant was proved: got %+v, want code %s", a, CodeNotAttached)
	}
	if err := f.Attach("acme", r.Challenge); err != nil {
		t.Fatal(err)
	}
	if a := r.say(page(8)); a.ID != 8 || a.header(transport.HeaderCode) != CodePages {
		t.Errorf("before there is a plane: got %+v, want code %s", a, CodePages)
	}
	pages := f.plane()
	if a := r.say(page(0)); a.ID != 0 || a.Code != CodeBadDescriptor {
		t.Errorf("without an id: got %+v, want code %s", a, CodeBadDescriptor)
	}
	for _, text := range []string{`{"op":"page","id":1,"headers":5}`, `{"op":"page","id":-1}`, `{"op":"page",`, page(1) + strings.Repeat(" ", maxMessage)} {
		if a := r.say(text); a.ID != 0 || a.Code != CodeBadRegion {
			t.Errorf("%.40s: got %+v, want code %s", text, a, CodeBadRegion)
		}
	}
	for i := range 2 {
		if _, err := r.Write([]byte(page(i + 1))); err != nil {
			t.Fatal(err)
		}
	}
	one := <-pages
	<-pages
	if a := r.say(page(3)); a.ID != 3 || a.header(transport.HeaderCode) != CodePages {
		t.Errorf("a third page under way: got %+v, want code %s", a, CodePages)
	}
	if err := one.answer(&nats.Msg{Header: nats.Header{transport.HeaderStatus: {transport.StatusOK}}, Data: []byte("x")}); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("a reply that did not fit its room: got %v, want %v", err, nats.ErrMaxPayload)
	}
	if err := one.answer(ok("done")); err != nil {
		t.Fatal(err)
	}
	var a answer
	if r.hear(&a); a.ID != 1 || a.header("Semproxy-Object") != "done" {
		t.Errorf("reply: got %+v, want that of page 1", a)
	}
	if _, err := r.Write([]byte(page(4))); err != nil {
		t.Fatal(err)
	}
	if p := <-pages; p.tenant != "acme" {
		t.Errorf("after an answer: got a page of %q, want acme", p.tenant)
	}
	for _, code := range []string{CodeNotAttached, CodePages, CodeBadRegion} {
		if f.counted(t, code) == 0 {
			t.Errorf("%s was not counted", code)
		}
	}
}

func TestASenderThatDoesNotReadItsAnswersHoldsUpNobody(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxPages = 1 << 20 })
	pages := f.plane()
	r := f.raw(t)
	if err := f.Attach("acme", r.Challenge); err != nil {
		t.Fatal(err)
	}
	for id := 1; ; id++ {
		if _, err := fmt.Fprintf(r, `{"op":"page","id":%d}`, id); err != nil {
			break // the sidecar has ended the socket
		}
		began := time.Now()
		if err := (<-pages).answer(ok(strings.Repeat("x", 3000))); err != nil {
			if took := time.Since(began); took > patience/2 {
				t.Errorf("the answer that had no room took %v", took)
			}
			break
		}
		if id > 1<<16 {
			t.Fatal("65536 answers of 3 KB wait in a socket that nobody reads")
		}
	}
	eventually(t, "the sidecar forgets the sender", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.senders) == 0
	})
}

func TestAProofIsMadeAgainAndEnds(t *testing.T) {
	f := serve(t, func(c *Config) { c.Proof = 100 * time.Millisecond })
	f.Serve(func(_ string, _ nats.Header, answer func(*nats.Msg) error) { _ = answer(ok("")) })
	var proofs atomic.Int32
	var forbidden atomic.Bool
	s, err := Dial(t.Context(), Options{Socket: f.socket}, func(_ context.Context, _, challenge string) error {
		if forbidden.Load() {
			return errors.New("no permission")
		}
		proofs.Add(1)
		return f.Attach("acme", challenge)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Put([]byte("page"), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	sent := 0
	send := func() error {
		m, err := s.Exchange(t.Context(), l, nats.Header{})
		if err == nil && m.Header.Get(transport.HeaderCode) == CodeNotAttached {
			err = ErrSocket // the sidecar's clock was ahead
		}
		if err == nil {
			sent++
		} else if !errors.Is(err, ErrSocket) {
			t.Fatal(err)
		}
		return err
	}
	eventually(t, "the tenant is proved again while pages are sent", func() bool { _ = send(); return proofs.Load() > 3 && sent > 0 })
	forbidden.Store(true)
	eventually(t, "a tenant that NATS does not let in sends nothing by the socket", func() bool { return send() != nil })
	for range 100 {
		if send() == nil {
			t.Fatal("a page went by the socket of a tenant that was not proved")
		}
	}
}

func TestAnExchangeEndsWithItsContextAndWithTheSidecar(t *testing.T) {
	f := serve(t, func(c *Config) { c.MaxPages = 1 })
	pages := f.plane()
	s := f.dial(t, "acme", Options{})
	l, err := s.Put([]byte("page"), 10)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-pages; cancel() }()
	if _, err := s.Exchange(ctx, l, nats.Header{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
	if _, err := s.Exchange(t.Context(), l, nats.Header{}); !errors.Is(err, ErrSocket) {
		t.Errorf("while the sidecar still has the page: got %v, want %v", err, ErrSocket)
	}
	s = f.dial(t, "acme", Options{})
	go func() { <-pages; _ = f.Close() }()
	if _, err := s.Exchange(t.Context(), l, nats.Header{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the sidecar ended: got %v, want %v", err, net.ErrClosed)
	}
	long := nats.Header{"traceparent": {strings.Repeat("x", maxMessage)}}
	if _, err := s.Exchange(t.Context(), l, long); !errors.Is(err, ErrSocket) {
		t.Errorf("headers longer than a packet: got %v, want %v", err, ErrSocket)
	}
}

func TestAMappedRegionThatIsCutShortIsAnError(t *testing.T) {
	m := memfd(t, 1<<20, 0) // without seals: what the sidecar never maps
	v := mapView(m, 1<<20, false)
	if v == nil {
		t.Fatal("a memfd was not mapped")
	}
	defer v.close()
	write(t, m, 0, 3, []byte("content"))
	part := make([]byte, 7)
	if err := v.read(part, BlockHeader); err != nil || string(part) != "content" {
		t.Fatalf("got %q, %v", part, err)
	}
	if err := m.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if err := v.read(make([]byte, 1<<19), 1<<18); !errors.Is(err, unix.EFAULT) {
		t.Errorf("behind the end of the file: got %v, want %v", err, unix.EFAULT)
	}
	if err := v.read(part, BlockHeader); err != nil {
		t.Errorf("before it: %v", err)
	}
}

func TestARegionThatIsDroppedOrHolesMadeUnderTheReader(t *testing.T) {
	const size = 4 << 20
	f := serve(t, nil)
	m := memfd(t, size, seals)
	write(t, m, 0, 5, randomPage(1, size-BlockHeader))
	descriptor := Descriptor{Region: f.attached(t, "acme", m, false), Generation: 5, Length: size - BlockHeader}.String()
	stop := make(chan struct{})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for {
				_, err := f.read("acme", descriptor)
				switch codeOf(err) {
				case "", CodeStale:
				case CodeUnknownRegion:
					return
				default:
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Fallocate(int(m.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20)
			}
		}
	})
	time.Sleep(20 * time.Millisecond) // any time will do: readers are at work before and after
	f.mu.Lock()
	for _, p := range f.senders {
		_ = p.conn.Close()
	}
	f.mu.Unlock()
	eventually(t, "the region is gone", func() bool { return f.usage().regions == 0 })
	close(stop)
	group.Wait()
}

// Senders that do not renew their proof are refused by the sidecar, too, not only by this package's own session.
func TestAProofThatIsTooOldIsRefused(t *testing.T) {
	f := serve(t, func(c *Config) { c.Proof = time.Nanosecond })
	f.plane()
	r := f.raw(t)
	if err := f.Attach("acme", r.Challenge); err != nil {
		t.Fatal(err)
	}
	if a := r.say(`{"op":"page","id":1,"headers":{"Semproxy-Shm":"{}"}}`); a.ID != 1 || a.header(transport.HeaderCode) != CodeNotAttached {
		t.Errorf("got %+v, want code %s", a, CodeNotAttached)
	}
}
