package forward

import (
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/hop"
	"github.com/semproxy/semproxy/proxy/recovery"
	"github.com/semproxy/semproxy/telemetry/semconv"
)

const scope = "github.com/semproxy/semproxy/proxy/forward"

// Proxy forwards requests to one engine. It is safe for concurrent use.
type Proxy struct {
	cfg       Config
	tracer    trace.Tracer
	metrics   *instruments
	memory    *memory
	turns     *turns
	origins   origins
	strangers strangers
	kept      kept
	health    health
	routers   sync.Map // tenants whose parameters of routers were refused, and said so
	upstream  *http.Transport
	hop       *hop.Transport // for short requests; nil: the engine does not speak plain HTTP/1.1
	reverse   *httputil.ReverseProxy
	engine    *gin.Engine
}

// New prepares a proxy; nothing is connected yet.
func New(cfg Config) (*Proxy, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, tracer: cfg.Tracer.Tracer(scope, trace.WithSchemaURL(semconv.GenAISchema))}
	if p.metrics, err = newInstruments(cfg.Meter); err != nil {
		return nil, err
	}
	p.memory = newMemory(cfg.Buffered, cfg.BufferedEach)
	p.turns, p.kept.each = newTurns(), map[string]*keptRing{}
	p.origins.seen = map[string]string{}
	p.upstream = newTransport(cfg)
	if cfg.Engine.Scheme == "http" {
		p.hop = hop.New(address(cfg.Engine), hop.Options{Idle: cfg.IdleConns, KeepAlive: cfg.KeepAlive, HeaderTimeout: cfg.HeaderTimeout})
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite: p.rewrite, ModifyResponse: p.modifyResponse, ErrorHandler: p.upstreamFailed,
		Transport: roundTripper{p}, BufferPool: &buffers{}, ErrorLog: discardLog,
	}
	gin.SetMode(gin.ReleaseMode)
	p.engine = gin.New()
	p.engine.RedirectTrailingSlash = false
	p.engine.Use(recovery.Middleware(cfg.Logger, func(c *gin.Context) {
		writeError(c.Writer, dialect.OpenAI, &dialect.Error{Status: http.StatusInternalServerError, Code: codes.Internal, Message: "the request could not be answered"})
	}))
	p.engine.NoRoute(p.handle) // dialect.Lookup is the table of routes: it also refuses every path that is not plain
	return p, nil
}

// ServeHTTP is part of http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := connectionOf(r.Context())
	conn.begin()
	defer conn.end()
	p.engine.ServeHTTP(w, r)
}

// Close lets the connections to the engine go that nobody uses.
func (p *Proxy) Close() {
	p.upstream.CloseIdleConnections()
	if p.hop != nil {
		p.hop.CloseIdleConnections()
	}
}

// address is the engine's host and port.
func address(engine *url.URL) string {
	port := engine.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(engine.Hostname(), port)
}

// buffers are what answers are copied through. They are small, because a stream holds one as long as it lives.
type buffers struct{ pool sync.Pool }

const bufferSize = 4 << 10

// Get is part of httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

// Put is part of httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
