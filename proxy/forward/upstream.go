package forward

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

// discardLog: what httputil would log is answered and recorded here.
var discardLog = log.New(io.Discard, "", 0)

// newTransport keeps connections and waits for streams as long as they need: what bounds them is the idle time.
func newTransport(cfg Config) *http.Transport {
	protocols := new(http.Protocols)
	if cfg.Engine.Scheme == "h2c" {
		protocols.SetUnencryptedHTTP2(true)
	} else {
		protocols.SetHTTP1(true)
	}
	return &http.Transport{
		Protocols:              protocols,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:           cfg.IdleConns,
		MaxIdleConnsPerHost:    cfg.IdleConns,
		IdleConnTimeout:        90 * time.Second,
		ReadBufferSize:         2 << 10, // a stream holds them as long as it lives; what is longer passes them by
		WriteBufferSize:        2 << 10,
		ResponseHeaderTimeout:  cfg.HeaderTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // an answer passes as the engine wrote it
	}
}

// NewTransport is one like the proxy's own, for other questions to the engine, with so many kept connections. The caller
// closes what is idle when it is done.
func NewTransport(engine *url.URL, connections int) *http.Transport {
	return newTransport(Config{Engine: engine, IdleConns: connections})
}

// send forwards the request and its answer. body replaces the request's own where it is not nil; a request that produces
// tokens is written here, since it carries the span of its own sending.
func (p *Proxy) send(ctx context.Context, x *exchange, r *http.Request, body []byte) error {
	ctx, x.engine = p.tracer.Start(ctx, semconv.SpanEngine, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPMethod.String(r.Method), semconv.HTTPRoute.String(x.route.Pattern), semconv.ServerAddress.String(p.cfg.Engine.Hostname())))
	if x.decision != nil {
		carrier := propagation.MapCarrier{}
		p.cfg.Propagator.Inject(ctx, carrier)
		var err error
		if body, x.hide, err = x.request.Rewrite(p.params(x, carrier["traceparent"])); err != nil {
			return err
		}
	}
	out := r.WithContext(ctx)
	switch {
	case body != nil:
		x.body = body
		if x.request != nil && x.request.Stream { // another answer ends soon after it has begun
			out = out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) { x.written.Store(info.Err == nil) }}))
		}
		out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, int64(len(body)), nil // rewrite gives it the body
	case r.Body != nil && r.Body != http.NoBody:
		out.Body = &streamed{ReadCloser: r.Body, deadline: http.NewResponseController(x.w), limit: p.cfg.ClientTimeout, left: p.cfg.MaxBody}
	}
	x.sent = p.cfg.Now()
	p.reverse.ServeHTTP(x.w, out)
	if x.err != nil {
		return nil // answered by upstreamFailed
	}
	p.trailers(x)
	return nil
}

// rewrite makes the request that the engine gets. Hop-by-hop headers and what says who forwarded are gone already.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	x := exchangeOf(r.In.Context())
	out := r.Out
	out.URL.Scheme, out.URL.Host = p.cfg.Engine.Scheme, p.cfg.Engine.Host
	if out.URL.Scheme == "h2c" {
		out.URL.Scheme = "http"
	}
	out.Host = ""
	out.Trailer = nil // it comes when all is decided: some servers make headers of it
	p.cfg.Identity.Strip(out.Header)
	for name := range out.Header {
		if strings.HasPrefix(name, ownPrefix) {
			delete(out.Header, name)
		}
	}
	if key := p.cfg.EngineKey(); key != "" {
		out.Header.Set("Authorization", "Bearer "+key)
	}
	if x.body != nil { // not before: ReverseProxy wraps what is there
		out.GetBody = x.open
		out.Body, _ = x.open()
	}
	r.SetXForwarded()
	out.Header.Set("X-Request-Id", x.id)
	out.Header.Del("Expect")
	if x.route.Kind == dialect.Generate {
		out.Header.Set("Accept-Encoding", "identity") // the usage is read from the answer
	}
	p.cfg.Propagator.Inject(out.Context(), propagation.HeaderCarrier(out.Header))
}

// upstreamFailed answers when there is no answer of the engine. Nothing has been written yet.
func (p *Proxy) upstreamFailed(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	var known *dialect.Error
	var timeout net.Error
	switch {
	case errors.As(err, &known): // the body was too large or too slow
	case r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errIdle):
		err = errClientGone
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(context.Cause(r.Context()), errIdle):
		err = refuse(http.StatusGatewayTimeout, "engine.timeout", "the engine did not answer in time")
	default:
		p.cfg.Logger.WarnContext(r.Context(), "engine_unreachable", "request_id", x.id, "error", err.Error())
		err = refuse(http.StatusBadGateway, "engine.unreachable", "the engine could not be reached or did not speak HTTP")
	}
	x.fail(err)
}
