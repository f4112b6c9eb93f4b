package shm

import (
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/transport"
)

// Take takes a page that came by a socket, and answers it once. It is transport.Server.Accept.
type Take = func(tenant string, header nats.Header, answer func(*nats.Msg) error)

// Config is what a [Server] is made of. Socket and Instance are required; a zero elsewhere takes the default.
type Config struct {
	Socket   string // path of the Unix socket
	Instance string // unique among the sidecars of the NATS system; transport.Config.Instance is the same
	// AnyUser lets processes of every user in; else those of the sidecar's own user, and the superuser.
	AnyUser        bool
	MaxSenders     int   // sockets open at once; default 64
	MaxRegions     int   // regions of one sender; default 8
	MaxRegionBytes int64 // of one region; default 1 GiB
	MaxPageBytes   int64 // of one page; default 64 MiB
	MaxPages       int   // under way at once by one socket; more go over NATS; default 64
	// Proof is how long pages may come by a socket after NATS has proved its tenant; senders prove it again meanwhile.
	// Default 10 min. So a tenant that NATS lets in no more is out after that time.
	Proof time.Duration

	MeterProvider metric.MeterProvider // default: the global one
	Logger        *slog.Logger         // default: slog.Default
}

func (c Config) withDefaults() (Config, error) {
	var faults []error
	if c.Socket == "" {
		faults = append(faults, errors.New("shm: Socket is required"))
	}
	if !transport.ValidTenant(c.Instance) {
		faults = append(faults, errors.New("shm: Instance must be 1 to 64 letters, digits, underscores or hyphens"))
	}
	if c.MaxSenders < 0 || c.MaxRegions < 0 || c.MaxRegionBytes < 0 || c.MaxPageBytes < 0 || c.MaxPages < 0 || c.Proof < 0 {
		faults = append(faults, errors.New("shm: limits must not be negative"))
	}
	if c.MaxSenders == 0 {
		c.MaxSenders = 64
	}
	if c.MaxRegions == 0 {
		c.MaxRegions = 8
	}
	if c.MaxRegionBytes == 0 {
		c.MaxRegionBytes = 1 << 30
	}
	if c.MaxPageBytes == 0 {
		c.MaxPageBytes = 64 << 20
	}
	if c.MaxPages == 0 {
		c.MaxPages = 64
	}
	if c.Proof == 0 {
		c.Proof = 10 * time.Minute
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, errors.Join(faults...)
}

// share is how many of the sockets one tenant may have: a quarter, so that none keeps the others out.
func (c *Config) share() int { return max(c.MaxSenders/4, 4) }
