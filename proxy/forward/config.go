package forward

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/proxy/dialect"
	"github.com/semproxy/semproxy/proxy/gate"
	"github.com/semproxy/semproxy/proxy/identity"
	"github.com/semproxy/semproxy/proxy/limit"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/proxy/spans"
	"github.com/semproxy/semproxy/proxy/verify"
)

// Kinds of engines.
const (
	VLLM   = "vllm"   // is given kv_transfer_params and cache_salt
	TGI    = "tgi"    // is given neither
	OpenAI = "openai" // is given neither
)

// Resolver says whose a request is. *identity.Resolver is one.
type Resolver interface {
	Resolve(r *http.Request) (identity.Who, error)
	Strip(h http.Header)
}

// Spans finds which tokens belong to the messages of roles. *spans.Finder is one.
type Spans interface {
	Find(ctx context.Context, tenant string, chat *dialect.Chat, roles []string) (spans.Found, error)
	Mismatch(model string) // the engine has counted other tokens than its /tokenize
}

// Verifier asks again what a sample of requests asked. *verify.Verifier is one.
type Verifier interface {
	Wants(share float64) bool
	Offer(s verify.Sample)
	Held(tenant, digest string) string // why the profile is stepped back for the tenant; empty: it is not
}

// Config is what a proxy works with. Engine, Identity and Policy are required; the zero value of every other field is
// useful.
type Config struct {
	Engine    *url.URL      // http, https, or h2c for HTTP/2 without TLS; host and port
	Kind      string        // "": VLLM
	EngineKey func() string // sent to the engine as a bearer token; nil or "": none
	Identity  Resolver
	Policy    func() *policy.Set // the rules in force; asked once per request
	Admission *limit.Admission   // nil: with default options
	Gate      *gate.Gate         // nil: with default options
	Recent    *recent.Ring       // nil: nothing is remembered
	Spans     Spans              // finds messages that policies protect; nil: they are not found, and the prompts stay exact
	Verify    Verifier           // nil: nothing is verified
	Off       func() string      // why nothing is to be compressed on this engine; nil or "": it may be
	KVUsage   func() float64     // share of the engine's KV memory in use; nil or negative: not known
	// NoPages says why pages would not be compressed now: the process that does it is away. nil or "": they would, as far as is known.
	NoPages func() string
	// Apart says that another process decides pages, which knows of their request what the engine's adapter repeats and nothing else.
	Apart bool

	MaxJSON       int64          // a longer JSON body is refused; 0: 16 MiB
	MaxBody       int64          // a longer body of another kind is refused; 0: 1 GiB
	Buffered      int64          // bytes of all JSON bodies held at one time; 0: 256 MiB
	BufferedEach  int64          // and of those of one tenant; 0: a quarter of Buffered, at least twice MaxJSON
	ClientTimeout time.Duration  // for a JSON body to arrive, and for each step of reading from or writing to a client; 0: 30 s
	HeaderTimeout time.Duration  // for the engine to begin its answer; 0: 10 min
	IdleTimeout   time.Duration  // for the engine to go on with it; 0: 5 min
	IdleConns     int            // connections to the engine that are kept; 0: 512
	KeepAlive     time.Duration  // and for how long without a request; shorter than the engine keeps them; 0: 4 s
	CORS          CORS           // who may call from a browser
	RelayPeers    []netip.Prefix // routers between prefill and decode engines: what they and engines tell each other passes
	HideDecision  bool           // no Semproxy- headers in answers

	Tracer     trace.TracerProvider
	Meter      metric.MeterProvider
	Propagator propagation.TextMapPropagator // nil: W3C trace context and baggage
	Logger     *slog.Logger
	Now        func() time.Time // nil: time.Now
}

func (c Config) withDefaults() (Config, error) {
	if c.Engine == nil || c.Identity == nil || c.Policy == nil {
		return c, errors.New("forward: an engine, an identity and a policy are required")
	}
	if c.Kind == "" {
		c.Kind = VLLM
	}
	if c.Admission == nil {
		c.Admission = limit.New(limit.Options{})
	}
	if c.Gate == nil {
		c.Gate = gate.New(gate.Options{})
	}
	if c.Recent == nil {
		c.Recent = recent.New(1)
	}
	if c.KVUsage == nil {
		c.KVUsage = func() float64 { return -1 }
	}
	if c.Off == nil {
		c.Off = func() string { return "" }
	}
	if c.NoPages == nil {
		c.NoPages = func() string { return "" }
	}
	if c.EngineKey == nil {
		c.EngineKey = func() string { return "" }
	}
	orElse(&c.MaxJSON, 16<<20)
	orElse(&c.MaxBody, 1<<30)
	orElse(&c.Buffered, 256<<20)
	orElse(&c.ClientTimeout, 30*time.Second)
	orElse(&c.HeaderTimeout, 10*time.Minute)
	orElse(&c.IdleTimeout, 5*time.Minute)
	orElse(&c.IdleConns, 512)
	orElse(&c.KeepAlive, 4*time.Second)
	orElse(&c.BufferedEach, min(c.Buffered, max(c.Buffered/4, 2*c.MaxJSON)))
	if c.CORS.Mode == "" {
		c.CORS.Mode = CORSPass
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider()
	}
	if c.Meter == nil {
		c.Meter = metricnoop.NewMeterProvider()
	}
	if c.Propagator == nil {
		c.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func orElse[T int | int64 | time.Duration](value *T, def T) {
	if *value <= 0 {
		*value = def
	}
}
