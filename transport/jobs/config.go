package jobs

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/transport"
)

// Config is what a [Runner] is made of. Conn and Tenants are required; a zero elsewhere takes the default.
type Config struct {
	Conn    *nats.Conn      // not closed by the runner; its user may use JetStream
	Tenants func() []Tenant // those in force; asked every Refresh

	Replicas      int           // copies of each stream; default 1, and 3 suits a cluster
	MaxBytes      int64         // of a tenant's jobs that wait; default 256 MiB, which JetStream reserves. A job over it is refused, none is dropped
	DeadBytes     int64         // of a tenant's dead letters, the oldest go first; default 64 MiB, reserved
	ResultBytes   int64         // of a tenant's outcomes, the oldest go first; default 16 MiB
	KeepDead      time.Duration // default a week
	KeepResults   time.Duration // default a day
	AckWait       time.Duration // after this without a sign of life another sidecar gets the job; default 30 s
	InHand        int           // jobs of a tenant that sidecars hold at once, all of them together; default 64
	MaxDeliveries int           // a job that was given out more often becomes a dead letter; default 100
	Refresh       time.Duration // default 5 s

	// Trial works on a page where it can do no harm, and reports whether that ended in a death: it is asked about a job whose
	// sidecar died at it. nil: the sidecar tries once more itself.
	Trial func(ctx context.Context, tenant string, page []byte) (died bool)
	// Refused is told what JetStream refuses, and of what kind that is; nil: nobody is.
	Refused func(kind string, err error)

	MeterProvider metric.MeterProvider // default: the global one
	Logger        *slog.Logger         // default: slog.Default
}

// Queue admits jobs. *transport.Server is one.
type Queue interface {
	Offer(j *transport.Job) (after time.Duration, refused *transport.Error)
}

func (c Config) withDefaults() (Config, error) {
	var faults []error
	if c.Conn == nil {
		faults = append(faults, errors.New("jobs: Conn is required"))
	}
	if c.Tenants == nil {
		faults = append(faults, errors.New("jobs: Tenants is required"))
	}
	setDefault(&c.Replicas, 1)
	setDefault(&c.MaxBytes, 256<<20)
	setDefault(&c.DeadBytes, 64<<20)
	setDefault(&c.ResultBytes, 16<<20)
	setDefault(&c.KeepDead, 7*24*time.Hour)
	setDefault(&c.KeepResults, 24*time.Hour)
	setDefault(&c.AckWait, 30*time.Second)
	setDefault(&c.InHand, 64)
	setDefault(&c.MaxDeliveries, 100)
	setDefault(&c.Refresh, 5*time.Second)
	if c.Refused == nil {
		c.Refused = func(string, error) {}
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Replicas < 1 || c.Replicas > 5 || min(c.MaxBytes, c.DeadBytes, c.ResultBytes) < 0 || min(c.KeepDead, c.KeepResults, c.AckWait, c.Refresh) < 0 || min(c.InHand, c.MaxDeliveries) < 0 {
		faults = append(faults, errors.New("jobs: Replicas must be 1 to 5 and nothing negative"))
	}
	return c, errors.Join(faults...)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
