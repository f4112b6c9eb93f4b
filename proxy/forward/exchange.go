package forward

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/spans"
)

// exchange is one request and its answer. One goroutine works on it, but for the body's reader in net/http's transport.
type exchange struct {
	p     *Proxy
	ctx   context.Context // of everything that is done for the request
	w     http.ResponseWriter
	route dialect.Route
	id    string // X-Request-Id
	// object names the KV of this request; its adapter sends it back as the pages' sequence.
	object string
	start  time.Time
	sent   time.Time
	span   trace.Span
	engine trace.Span // nil: nothing was sent

	who     identity.Who
	rules   *policy.Set
	headers map[string]string // that the tenant's rules look at; nil: none
	entry   string            // of the policy that serves the tenant: a bounded label
	ticket  *limit.Ticket
	held    int64 // bytes of the body, counted in the proxy's budget until it is released
	request *dialect.Request
	body    *dialect.Body   // as it is sent to the engine; nil: it streams through
	sending dialect.Reading // the reader of body that the transport has
	written atomic.Bool     // the transport needs no more of body
	reused  atomic.Bool     // the connection that it was sent on had been kept
	begun   atomic.Bool     // a byte of the answer has come
	hop     bool            // it is sent by the package hop
	conn    *connection     // of the client
	origin  string          // of the page that sends it; empty: none says
	relay   bool            // the client is a router that engines' parameters pass to

	tokens   int // of the prompt, estimated
	exact    bool
	decision *policy.Decision
	verdict  *gate.Verdict
	found    spans.Found   // messages that the policy protects
	spans    *recent.Spans // what became of looking for them; nil: nobody looked

	status     int
	err        error
	usage      dialect.Usage
	answer     dialect.Answer
	noted      bool   // the answer's id has been
	sampled    []byte // the body, where it is to be verified; nil: it is not
	events     int
	first      time.Time // event of the answer
	last       time.Time
	early      bool // pages were there before the first event
	queued     time.Duration
	bodyTime   time.Duration
	decideTime time.Duration
	headerTime time.Duration
	cancel     context.CancelCauseFunc
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// requestID is the client's if it is harmless, else a new one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > 128 {
		return randomHex()
	}
	for _, b := range []byte(id) {
		if (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '-' && b != '_' && b != '.' {
			return randomHex()
		}
	}
	return id
}

func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// writeError writes an error in the shape of a dialect.
func writeError(w http.ResponseWriter, d dialect.Dialect, e *dialect.Error) {
	body := e.Body(d)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(e.Status)
	_, _ = w.Write(body)
}

// KVParams is what the engine's connector is told in kv_transfer_params.
type KVParams struct {
	Tenant       string `json:"tenant"`
	PolicyDigest string `json:"policy_digest"`
	Object       string `json:"object"` // to be the sequence of the pages that are sent
	Traceparent  string `json:"traceparent,omitempty"`
	Compress     bool   `json:"compress"`
	// Protect are ranges [from, to) of the prompt's tokens that are never to be merged: the adapter sets them in the protect
	// tensors of the pages that they lie in.
	Protect []spans.Span `json:"protect,omitzero"`
	// Headers are those that the tenant's rules look at: the adapter says them again in its pages and lookups, so that they are
	// decided as the request was by whichever process they reach.
	Headers map[string]string `json:"headers,omitempty"`
}

// open is another reader of the body: the transport asks again when a kept connection turns out to be dead before anything
// was sent. It knows this type and writes headers and body together.
func (x *exchange) open() (io.ReadCloser, error) {
	x.sending = x.body.Reader()
	x.written.Store(false)
	return io.NopCloser(x.sending), nil
}

// release lets go of the body when the answer has begun and the engine has all of it: a long stream does not hold its prompt.
func (x *exchange) release() {
	if x.body == nil || !x.written.Load() {
		return
	}
	if x.sending != nil {
		x.sending.Reset(nil)
	}
	x.body = nil
	x.p.memory.take(x.entry, -x.held)
	x.held = 0
}
