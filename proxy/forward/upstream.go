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

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/hop"
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
		IdleConnTimeout:        cfg.KeepAlive,
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
	return newTransport(Config{Engine: engine, IdleConns: connections, KeepAlive: 4 * time.Second})
}

// send forwards the request and its answer. One whose body was read is written here, since it carries the span of its own sending.
func (p *Proxy) send(ctx context.Context, x *exchange, r *http.Request) error {
	ctx, x.engine = p.tracer.Start(ctx, semconv.SpanEngine, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPMethod.String(r.Method), semconv.HTTPRoute.String(x.route.Pattern), semconv.ServerAddress.String(p.cfg.Engine.Hostname())))
	out := r.WithContext(ctx)
	switch {
	case x.request != nil:
		carrier := propagation.MapCarrier{}
		p.cfg.Propagator.Inject(ctx, carrier)
		var err error
		if x.body, x.answer.Hide, err = x.request.Rewrite(p.params(x, carrier["traceparent"])); err != nil {
			return err
		}
		p.sample(x)
		if x.hop = p.hop != nil && x.body.Len() <= hop.MaxBody; x.hop {
			out = out.WithContext(ctx)
			out.Body, out.ContentLength, out.TransferEncoding = nil, 0, nil // hop sends it
			break
		}
		out = out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn:              func(info httptrace.GotConnInfo) { x.reused.Store(info.Reused) },
			GotFirstResponseByte: func() { x.begun.Store(true) },
			WroteRequest:         func(info httptrace.WroteRequestInfo) { x.written.Store(info.Err == nil) },
		}))
		out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, x.body.Len(), nil // rewrite gives it the body
	case r.Body != nil && r.Body != http.NoBody:
		body, err := p.streamed(x, r)
		if err != nil {
			return err
		}
		if out.Body = body; body.form {
			out.ContentLength = -1
		}
	default:
		x.hop = p.hop != nil
	}
	x.sent = p.cfg.Now()
	p.reverse.ServeHTTP(x.w, out)
	if x.err != nil {
		return nil // answered by upstreamFailed
	}
	p.trailers(x)
	return nil
}

// maxSends bounds how often a request is sent that has met closed connections.
const maxSends = 4

// roundTripper sends a request again that has met a kept connection which the engine has closed, before any byte of an answer: the
// engine has closed it because nothing came, and has not begun.
type roundTripper struct{ p *Proxy }

// RoundTrip is part of http.RoundTripper.
func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	x := exchangeOf(r.Context())
	if x.hop {
		return t.p.hopOver(x, r)
	}
	for sends := 1; ; sends++ {
		res, err := t.p.upstream.RoundTrip(r)
		if err == nil || x.body == nil || sends == maxSends || !x.reused.Load() || x.begun.Load() || final(r, err) {
			return res, err
		}
		t.p.upstream.CloseIdleConnections() // they are as old
		r.Body, _ = x.open()
	}
}

// hopOver is the same for what is short: see the package hop.
func (p *Proxy) hopOver(x *exchange, r *http.Request) (*http.Response, error) {
	var pieces [][]byte
	size := int64(0)
	if x.body != nil {
		pieces, size = x.body.Pieces(), x.body.Len()
	}
	for sends := 1; ; sends++ {
		res, kept, begun, err := p.hop.Send(r, pieces, size)
		if err == nil {
			x.written.Store(true)
			return res, nil
		}
		if sends == maxSends || !kept || begun || final(r, err) {
			return nil, err
		}
		p.hop.CloseIdleConnections() // they are as old
	}
}

// final says whether an error is not for a connection's sake.
func final(r *http.Request, err error) bool {
	var timeout net.Error
	return r.Context().Err() != nil || errors.As(err, &timeout) && timeout.Timeout()
}

// engineURL is that of a path of the engine.
func (p *Proxy) engineURL(path string) string {
	target := *p.cfg.Engine
	if target.Path = path; target.Scheme == "h2c" {
		target.Scheme = "http"
	}
	return target.String()
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
		if strings.HasPrefix(name, ownPrefix) || dialect.PrivateHeader(name) && !x.relay {
			delete(out.Header, name)
		}
	}
	if key := p.cfg.EngineKey(); key != "" {
		out.Header.Set("Authorization", "Bearer "+key)
	}
	if x.body != nil && !x.hop { // not before: ReverseProxy wraps what is there
		out.GetBody = x.open
		out.Body, _ = x.open()
	}
	r.SetXForwarded()
	out.Header.Set("X-Request-Id", x.id)
	out.Header.Del("Expect")
	out.Header.Set("Accept-Encoding", "identity") // the answer is read
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
		err = refuse(http.StatusGatewayTimeout, codes.EngineTimeout, "the engine did not answer in time")
	default:
		p.cfg.Logger.WarnContext(r.Context(), "engine_unreachable", "request_id", x.id, "error", err.Error())
		err = refuse(http.StatusBadGateway, codes.EngineUnreachable, "the engine could not be reached or did not speak HTTP")
	}
	x.fail(err)
}
