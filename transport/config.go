package transport

import (
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config is what a [Server] is made of. Conn, Handler and Limiter are required; a zero elsewhere takes the default.
type Config struct {
	Conn    *nats.Conn // not closed by the server
	Handler Handler
	Limiter Limiter

	Workers        int           // pages worked on at once; default 4
	QueueLength    int           // messages that wait for a worker, all tenants; default 256
	InFlightBytes  int64         // bytes of bodies that wait or are worked on, all tenants; default 512 MiB
	RequestTimeout time.Duration // from arrival to the end of the handler; default 30 s
	MaxTenants     int           // tenants whose rate is remembered; default 4096, at least QueueLength + Workers

	// Memory and Instance serve pages in shared memory: requests that name Instance, which no other sidecar's may equal,
	// reach this server alone. Without Memory they are refused with [CodeNoMemory].
	Memory   Memory
	Instance string
	Jobs     Jobs // nil: jobs are refused with [CodeNoJobs]

	// PrivateInboxes sends a reply only below the tenant's own inbox prefix ([InboxPrefix]), so that a tenant cannot have
	// its reply delivered to another. Set it when users are told apart by permissions ([EmbeddedServer.PrivateInboxes]).
	// It does not suit accounts, where the NATS server rewrites reply subjects and keeps tenants apart by itself.
	PrivateInboxes bool

	// Refused is told what NATS refuses on Conn, and of what kind that is; it must not block. nil: it is logged.
	Refused func(kind string, err error)

	TracerProvider trace.TracerProvider // default: the global one
	MeterProvider  metric.MeterProvider // default: the global one
	Logger         *slog.Logger         // default: slog.Default
}

func (c Config) withDefaults() (Config, error) {
	var faults []error
	if c.Conn == nil {
		faults = append(faults, errors.New("transport: Conn is required"))
	}
	if c.Handler == nil {
		faults = append(faults, errors.New("transport: Handler is required"))
	}
	if c.Limiter == nil {
		faults = append(faults, errors.New("transport: Limiter is required"))
	}
	if c.Workers < 0 || c.QueueLength < 0 || c.InFlightBytes < 0 || c.RequestTimeout < 0 || c.MaxTenants < 0 {
		faults = append(faults, errors.New("transport: Workers, QueueLength, InFlightBytes, RequestTimeout and MaxTenants must not be negative"))
	}
	if (c.Memory != nil || c.Instance != "") && !ValidTenant(c.Instance) {
		faults = append(faults, errors.New("transport: Instance must be 1 to 64 letters, digits, underscores or hyphens"))
	}
	setDefault(&c.Workers, 4)
	setDefault(&c.QueueLength, 256)
	setDefault(&c.InFlightBytes, 512<<20)
	setDefault(&c.RequestTimeout, 30*time.Second)
	setDefault(&c.MaxTenants, 4096)
	c.MaxTenants = max(c.MaxTenants, c.QueueLength+c.Workers)
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Refused == nil {
		c.Refused = func(kind string, err error) { c.Logger.Warn("nats_refuses", "kind", kind, "error", err) }
	}
	return c, errors.Join(faults...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
