package forward

import (
	"net/http"
	"net/http/httputil"
	"sync"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/recovery"
)

const scope = "github.com/semproxy/semproxy/proxy/forward"

// Proxy forwards requests to one engine. It is safe for concurrent use.
type Proxy struct {
	cfg      Config
	tracer   trace.Tracer
	metrics  *instruments
	buffered budget
	upstream *http.Transport
	reverse  *httputil.ReverseProxy
	engine   *gin.Engine
}

// New prepares a proxy; nothing is connected yet.
func New(cfg Config) (*Proxy, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, tracer: cfg.Tracer.Tracer(scope)}
	if p.metrics, err = newInstruments(cfg.Meter); err != nil {
		return nil, err
	}
	p.buffered.left.Store(cfg.Buffered)
	p.upstream = newTransport(cfg)
	p.reverse = &httputil.ReverseProxy{
		Rewrite: p.rewrite, ModifyResponse: p.modifyResponse, ErrorHandler: p.upstreamFailed,
		Transport: p.upstream, BufferPool: &buffers{}, ErrorLog: discardLog,
	}
	gin.SetMode(gin.ReleaseMode)
	p.engine = gin.New()
	p.engine.RedirectTrailingSlash = false
	p.engine.Use(recovery.Middleware(cfg.Logger, func(c *gin.Context) {
		writeError(c.Writer, dialect.OpenAI, &dialect.Error{Status: http.StatusInternalServerError, Code: "internal", Message: "the request could not be answered"})
	}))
	p.engine.NoRoute(p.handle) // dialect.Lookup is the table of routes: it also refuses every path that is not plain
	return p, nil
}

// ServeHTTP is part of http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.engine.ServeHTTP(w, r) }

// Close lets the connections to the engine go that nobody uses.
func (p *Proxy) Close() { p.upstream.CloseIdleConnections() }

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
