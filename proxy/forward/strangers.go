package forward

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/semproxy/semproxy/codes"
)

// What is answered without a credential is bounded for all together: preflights per second, and questions to the engine after its
// health, whose answer is shared for a moment.
const (
	strangersPerSecond = 200
	healthShared       = 200 * time.Millisecond
)

// strangers is a bucket of strangersPerSecond.
type strangers struct {
	mu    sync.Mutex
	level float64
	at    time.Time
}

// take is how long to wait for the next; 0: it was taken.
func (s *strangers) take(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() {
		s.level = strangersPerSecond
	} else if d := now.Sub(s.at).Seconds(); d > 0 {
		s.level = min(strangersPerSecond, s.level+d*strangersPerSecond)
	}
	s.at = now
	if s.level < 1 {
		return time.Second
	}
	s.level--
	return 0
}

// health is the engine's last answer of its health.
type health struct {
	mu     sync.Mutex
	at     time.Time
	status int // 0: there was none
	kind   string
	body   []byte
}

// probe answers for the engine, which is asked where its last answer is too old. Probes that come meanwhile wait for it.
func (p *Proxy) probe(x *exchange, r *http.Request) error {
	if r.ContentLength != 0 {
		return refuse(http.StatusBadRequest, codes.RequestBadProbe, "a question after the engine's health has no body")
	}
	h := &p.health
	h.mu.Lock()
	if h.status == 0 || p.cfg.Now().Sub(h.at) >= healthShared {
		p.askHealth(context.WithoutCancel(r.Context()), h)
	}
	status, kind, body := h.status, h.kind, h.body
	h.mu.Unlock()
	if status == 0 {
		return refuse(http.StatusBadGateway, codes.EngineUnreachable, "the engine could not be reached or did not speak HTTP")
	}
	x.status = status
	p.allow(x)
	header := x.w.Header()
	if kind != "" {
		header.Set("Content-Type", kind)
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = x.w.Write(body)
	}
	return nil
}

// maxHealth bounds what an engine may say of its health.
const maxHealth = 4 << 10

func (p *Proxy) askHealth(ctx context.Context, h *health) {
	h.status = 0
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.engineURL("/health"), http.NoBody)
	if err != nil {
		return
	}
	if key := p.cfg.EngineKey(); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := p.upstream.RoundTrip(request)
	if err != nil {
		return
	}
	defer func() { _ = response.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealth))
	if err != nil {
		return
	}
	h.status, h.kind, h.body, h.at = response.StatusCode, response.Header.Get("Content-Type"), body, p.cfg.Now()
}
