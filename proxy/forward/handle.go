package forward

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// handle is the life of a request.
func (p *Proxy) handle(c *gin.Context) {
	w, r := newPatient(c.Writer, c.Request, p.cfg.ClientTimeout), c.Request
	c.Writer = w
	c.Status(http.StatusOK) // gin has set 404, since no route of its own matches
	ctx := p.cfg.Propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	asks := preflight(r) && p.cfg.CORS.Mode != CORSOff
	route, found, allowed := lookup(r, asks)
	x := &exchange{
		p: p, w: w, route: route, id: requestID(r), object: randomHex(), start: p.cfg.Now(), usage: dialect.NoUsage(), entry: policy.UnknownTenant,
		conn: connectionOf(r.Context()), origin: r.Header.Get(headerOrigin), relay: p.relays(r),
	}
	x.answer = dialect.Answer{Dialect: route.Dialect, Relay: x.relay, Named: route.Keeps}
	ctx, x.span = p.tracer.Start(ctx, strings.TrimSpace(methodLabel(r.Method)+" "+x.route.Pattern), trace.WithSpanKind(trace.SpanKindServer))
	ctx, x.cancel = context.WithCancelCause(context.WithValue(ctx, exchangeKey{}, x))
	x.ctx = ctx
	w.Header().Set("X-Request-Id", x.id)
	defer func() {
		reason := recover() // http.ErrAbortHandler, when the engine dies in mid-stream: recorded, then on its way
		p.finish(ctx, x, r, reason != nil)
		if reason != nil {
			panic(reason)
		}
	}()
	var err error
	switch {
	case !found:
		err = errNoRoute
	case !allowed:
		err = refuse(http.StatusMethodNotAllowed, codes.RouteMethod, "this path has no such method")
	case asks && route.Kind == dialect.Named && !p.cfg.Policy().Names(r.URL.Path):
		err = errNoRoute
	case asks:
		err = p.ask(ctx, x, r)
	default:
		err = p.serve(ctx, x, r)
	}
	if err != nil {
		x.fail(err)
	}
	w.WriteHeaderNow() // else gin writes a text of its own for a status of 404
}

var errNoRoute = refuse(http.StatusNotFound, codes.RouteNotFound, "there is no such path here")

// lookup finds the route of a request, or of the one that a preflight asks for.
func lookup(r *http.Request, asks bool) (route dialect.Route, found, allowed bool) {
	if asks {
		wanted := *r
		wanted.Method = r.Header.Get(headerWanted)
		return dialect.Lookup(&wanted)
	}
	return dialect.Lookup(r)
}

// ask answers a preflight, or lets the engine do so.
func (p *Proxy) ask(ctx context.Context, x *exchange, r *http.Request) error {
	if answered, err := p.preflight(x, r); answered || err != nil {
		return err
	}
	return p.send(ctx, x, r)
}

// relays says whether a request comes from a router between prefill and decode engines.
func (p *Proxy) relays(r *http.Request) bool {
	if len(p.cfg.RelayPeers) == 0 {
		return false
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && slices.ContainsFunc(p.cfg.RelayPeers, func(n netip.Prefix) bool { return n.Contains(peer.Addr().Unmap()) })
}

// serve takes an allowed request through. What it returns is answered as an error.
func (p *Proxy) serve(ctx context.Context, x *exchange, r *http.Request) (err error) {
	switch r.Header.Get("Upgrade") {
	case "":
	case "h2c": // an offer, which a server may leave unanswered: Java's client makes it with every first request
		r.Header.Del("Upgrade")
		r.Header.Del("Http2-Settings")
	default:
		return refuse(http.StatusBadRequest, codes.RequestUpgrade, "connections are not upgraded: what passes there could not be looked at")
	}
	if x.route.Kind == dialect.Probe {
		return p.probe(x, r)
	}

	// 1. Who is it? Before anything of the body is read.
	if x.who, err = p.cfg.Identity.Resolve(r); err != nil {
		if x.route.Kind == dialect.Named {
			return errNoRoute
		}
		return err
	}

	// 2. May it come in now? The rules are one snapshot for the whole request.
	if err := p.admit(ctx, x, r); err != nil {
		return err
	}
	p.remember(x, r)
	if x.route.Recalls {
		if err := p.recalls(x, strings.Split(r.URL.Path, "/")[3]); err != nil {
			return err
		}
	}
	if !isJSON(r, x.route) || r.ContentLength == 0 && !x.route.Counts() {
		return p.pass(ctx, x, r)
	}

	// 3. What does it ask for?
	if err := p.inspect(x, r); err != nil {
		return err
	}
	if err := p.relayed(x); err != nil {
		return err
	}
	if err := p.recalled(x); err != nil {
		return err
	}

	// 4. Is the prompt's KV compressed? The policy says whether it may be, the gate whether it should.
	if x.route.Kind == dialect.Generate {
		if err := p.decide(ctx, x, r); err != nil {
			return err
		}
		p.protect(ctx, x)
		p.metrics.gate.Add(ctx, 1, p.metrics.reason(x.verdict.Reason)...)
	} else {
		p.estimate(x)
	}
	if x.route.Counts() {
		if err := x.ticket.Reserve(x.tokens + x.request.MaxTokens*x.request.Answers); err != nil {
			return err
		}
	}

	// 5. To the engine and back.
	return p.send(ctx, x, r)
}

// pass lets a request through without reading its body: one without, or a form, whose parts are looked at as they pass.
func (p *Proxy) pass(ctx context.Context, x *exchange, r *http.Request) error {
	if r.ContentLength > p.cfg.MaxBody {
		return errTooLarge
	}
	if x.route.Kind == dialect.Named { // what it uses is not known before
		if err := x.ticket.Reserve(0); err != nil {
			return err
		}
	}
	return p.send(ctx, x, r)
}

// relayed refuses what a router sends that is not known to be one: without it the engine would do something else.
func (p *Proxy) relayed(x *exchange) error {
	if x.request.Relay == nil || x.relay {
		return nil
	}
	if _, said := p.routers.LoadOrStore(x.entry, true); !said {
		p.cfg.Logger.Warn("router_refused", "tenant", x.entry, "request_id", x.id,
			"effect", "requests with do_remote_prefill or do_remote_decode are refused; proxy.engine.relayPeers lets those of a router pass")
	}
	return refuse(http.StatusForbidden, codes.RequestRelay, "kv_transfer_params of a router between prefill and decode engines pass only from its own address")
}

// admit holds the tenant to its limits. A tenant that the policy does not name shares those of "unknown".
func (p *Proxy) admit(ctx context.Context, x *exchange, r *http.Request) (err error) {
	x.rules = p.cfg.Policy()
	entry, ok := x.rules.Resolve(x.who.Tenant)
	if !ok {
		return &policy.DeniedError{Tenant: x.who.Tenant}
	}
	x.entry = entry
	if x.route.Kind == dialect.Named && !x.rules.Allows(x.who.Tenant, r.URL.Path) {
		return errNoRoute
	}
	l := x.rules.Limits(x.who.Tenant)
	x.ticket, err = p.cfg.Admission.Enter(ctx, entry, limit.Limits{
		RequestsPerSecond: l.RequestsPerSecond, TokensPerMinute: l.TokensPerMinute,
		TokensPerHour: l.TokensPerHour, TokensPerDay: l.TokensPerDay, Shadow: l.Shadow,
		Concurrent: l.ConcurrentRequests, Queue: l.QueuedRequests,
	})
	if err != nil {
		return err
	}
	x.queued = x.ticket.Waited
	return nil
}

// inspect reads the body and what it asks for.
func (p *Proxy) inspect(x *exchange, r *http.Request) error {
	if err := p.checkJSON(r); err != nil {
		return err
	}
	start := p.cfg.Now()
	request, err := p.read(x, r)
	x.bodyTime = p.cfg.Now().Sub(start)
	x.request = request
	return err
}

// estimate says how many tokens the prompt has, about.
func (p *Proxy) estimate(x *exchange) {
	q := x.request
	if x.exact = q.Prompt.Exact(); x.exact {
		x.tokens = q.Prompt.Tokens
		return
	}
	x.tokens = p.cfg.Gate.Estimate(x.who.Tenant, q.Model, promptOf(q))
}

func promptOf(q *dialect.Request) gate.Prompt {
	return gate.Prompt{Bytes: q.Prompt.Bytes, Tokens: q.Prompt.Tokens, Media: q.Prompt.Media}
}

// headerCompress is how a client says that it wants the exact cache for this request.
const headerCompress = "Semproxy-Compress"

// decide asks the policy, then the gate.
func (p *Proxy) decide(ctx context.Context, x *exchange, r *http.Request) error {
	_, span := p.tracer.Start(ctx, semconv.SpanDecide)
	defer span.End()
	start := p.cfg.Now()
	defer func() { x.decideTime = p.cfg.Now().Sub(start) }()
	q := x.request
	p.estimate(x)
	request := policy.Request{Tenant: x.who.Tenant, Model: q.Model, Tokens: x.tokens}
	if x.headers != nil {
		request.Header = func(name string) string { return x.headers[name] }
	}
	decision, err := x.rules.Decide(request)
	if err != nil {
		return err
	}
	x.decision = &decision
	var verdict gate.Verdict
	switch wish := r.Header.Get(headerCompress); {
	case wish != "" && wish != "off" && wish != "on":
		return refuse(http.StatusBadRequest, codes.RequestBadHeader, headerCompress+" must be on or off")
	case decision.Plan.Untouched():
		verdict = gate.Verdict{Reason: gate.Exact, Why: decision.Reason}
	case wish == "off":
		verdict = gate.Verdict{Reason: gate.Asked, Why: "the client asked for the exact cache"}
	default:
		if why := p.noPages(x); why != "" {
			verdict = gate.Verdict{Reason: gate.Away, Why: why}
			break
		}
		if off := p.cfg.Off(); off != "" {
			verdict = gate.Verdict{Reason: gate.Held, Why: off}
			break
		}
		if p.cfg.Verify != nil {
			if why := p.cfg.Verify.Held(x.who.Tenant, decision.PolicyDigest); why != "" {
				verdict = gate.Verdict{Reason: gate.Back, Why: why}
				break
			}
		}
		verdict = p.cfg.Gate.Decide(gate.Request{
			Model: q.Model, Tokens: x.tokens, MaxOutput: q.MaxTokens, Ratio: decision.Plan.Ratio, KVUsage: p.cfg.KVUsage(),
		})
	}
	x.verdict = &verdict
	if !span.IsRecording() {
		return nil
	}
	span.SetAttributes(semconv.Tenant.String(x.who.Tenant), semconv.Policy.String(decision.Profile), semconv.PolicyDigest.String(decision.PolicyDigest),
		semconv.Rule.String(decision.Rule), semconv.Method.String(string(decision.Plan.Method)), semconv.GateReason.String(string(verdict.Reason)))
	return nil
}

// noPages says why the request's pages would not be compressed as was decided; empty: they would.
func (p *Proxy) noPages(x *exchange) string {
	if p.cfg.Apart && len(x.headers) > 0 && carried(x.headers) == nil {
		return "the headers that the tenant's rules look at are too long to go with its pages to the page plane's process"
	}
	return p.cfg.NoPages()
}

// params are what is added to a request that produces tokens. traceparent is that of the engine's span.
func (p *Proxy) params(x *exchange, traceparent string) dialect.Params {
	out := dialect.Params{Usage: true}
	if x.route.Keeps && p.cfg.Kind == VLLM {
		out.ID = keptID(x.who.Tenant)
	}
	if p.cfg.Kind != VLLM || x.route.Kind != dialect.Generate && x.route.Kind != dialect.Embed {
		return out
	}
	out.CacheSalt = cacheSalt(x.who.Tenant, x.request.ClientSalt())
	if x.route.Kind == dialect.Embed {
		return out
	}
	if x.relay {
		out.Relay = x.request.Relay
	}
	out.KV = KVParams{
		Tenant: x.who.Tenant, PolicyDigest: x.decision.PolicyDigest, Object: x.object,
		Traceparent: traceparent, Compress: x.verdict.Compress, Protect: x.found.Spans,
		Headers: carried(x.headers),
	}
	return out
}

// carried are headers that fit a page's metadata; nil where they do not: only this process knows them.
func carried(headers map[string]string) map[string]string {
	size := 0
	for name, value := range headers {
		size += len(name) + 6*len(value) + 6 // of JSON, however it is escaped
	}
	if size > maxCarried {
		return nil
	}
	return headers
}

const maxCarried = 2000 // bytes

// cacheSalt keeps the prefix caches of tenants apart: nobody learns from the time of an answer whether another tenant
// has sent the same prompt. A client's own salt divides its tenant's cache further. It is the same in every replica.
func cacheSalt(tenant string, client []byte) string {
	h := sha256.New()
	h.Write([]byte("semproxy.cache_salt.v1\x00" + tenant + "\x00"))
	h.Write(client)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// fail answers with an error, unless the client is gone or the answer has begun.
func (x *exchange) fail(err error) {
	x.err = err
	var known *dialect.Error
	var busy *limit.BusyError
	var denied *policy.DeniedError
	switch {
	case errors.As(err, &known):
	case errors.As(err, &busy):
		status := http.StatusTooManyRequests
		if busy.Code == limit.CodeConcurrent {
			status = http.StatusServiceUnavailable
		}
		known = &dialect.Error{Status: status, Code: busy.Code, Message: busy.Error()}
		x.w.Header().Set("Retry-After", strconv.Itoa(busy.Seconds()))
	case errors.As(err, &denied):
		known = &dialect.Error{Status: http.StatusForbidden, Code: denied.Code(), Message: denied.Error()}
	case errors.Is(err, errClientGone), errors.Is(err, context.Canceled):
		x.status = statusClientGone
		panic(http.ErrAbortHandler) // nobody reads an answer
	default:
		known = &dialect.Error{Status: http.StatusInternalServerError, Code: "internal", Message: "the request could not be answered"}
		x.p.cfg.Logger.Error("request_failed", "request_id", x.id, "error", err.Error())
	}
	if known.Status == http.StatusServiceUnavailable && x.w.Header().Get("Retry-After") == "" {
		x.w.Header().Set("Retry-After", "1")
	}
	switch known.Status {
	case http.StatusUnauthorized:
		x.w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusRequestTimeout, http.StatusRequestEntityTooLarge:
		x.w.Header().Set("Connection", "close") // the rest of the body is not read
	}
	x.err, x.status = known, known.Status
	x.p.metrics.refused.Add(context.Background(), 1, code(known.Code))
	x.p.allow(x)
	writeError(x.w, x.route.Dialect, known)
}

// statusClientGone is nginx's status for a client that went away before the answer; it is recorded, never sent.
const statusClientGone = 499

// since is the time between two moments in milliseconds; 0 when one did not come.
func since(from, to time.Time) float64 {
	if from.IsZero() || to.IsZero() {
		return 0
	}
	return float64(to.Sub(from)) / float64(time.Millisecond)
}
