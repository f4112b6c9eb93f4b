package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/watch"
	"github.com/semproxy/semproxy/proxy"
	"github.com/semproxy/semproxy/proxy/recent"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/sidecar/reports"
	"github.com/semproxy/semproxy/store"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/telemetry"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/jobs"
	"github.com/semproxy/semproxy/transport/page"
	"github.com/semproxy/semproxy/transport/shm"
)

// Sidecar is a running sidecar: every part, and the order in which they start and stop.
type Sidecar struct {
	cfg        *config.Config
	version    string
	tel        *telemetry.Telemetry
	log        *slog.Logger
	rules      func() *policy.Set
	watcher    *watch.Watcher // nil: the policy does not change
	compressor *compress.Compressor
	backend    pipeline.Compressor // the compressor, or a GPU before it
	store      store.Store
	prefixes   pipeline.Prefixes
	claims     pipeline.Claims // nil: nobody else uses the store
	redis      *redis.Store    // nil: the store is this process's own
	pipeline   *pipeline.Pipeline
	nats       *transport.EmbeddedServer // nil: an external server
	conn       *nats.Conn
	memory     *shm.Server  // nil: no fast path
	instance   string       // this process's name in subjects
	jobs       *jobs.Runner // nil: none are kept
	plane      *transport.Server
	admin      *proxy.Admin
	requests   *requestPlane   // nil: no proxy
	link       link            // to the process of the other plane; nil: this one runs both
	reports    *reports.Sender // of pages, for that process; nil: this one has the requests, or nobody has
	look       look            // what people look at
	ring       *recent.Ring    // the last requests, and pages that belong to none
	swaps      swappable       // what the admin API replaces
	neighbours *neighbours
	draining   atomic.Bool
	stopped    []func() // in reverse order of start
}

// Options are what is not configuration.
type Options struct {
	Version string // of the program, as it tells people
	// Text makes a page of a text that a person types into the console, with the texts of its tokens; nil: none is taken.
	Text      func(ctx context.Context, text string) (page []byte, words []string, err error)
	TextChars int // the longest text that Text takes
	// Trial are the arguments with which this program runs [TryPage], for a job's page that may have killed a process; nil: it cannot.
	Trial []string

	// What only the demo and tests set.
	Policy    *policy.Set      // instead of cfg.Policy
	Users     []transport.User // instead of cfg.NATS.Embedded.UsersFile
	LogOutput io.Writer
	Spans     []sdktrace.SpanProcessor
}

// Start starts every part of a sidecar; what it started is stopped again when one of them fails.
func Start(ctx context.Context, cfg *config.Config, opt Options) (*Sidecar, error) {
	s := &Sidecar{cfg: cfg, version: opt.Version}
	for _, start := range s.starts() {
		if err := start(ctx, opt); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Sidecar) startTelemetry(ctx context.Context, opt Options) (err error) {
	s.tel, err = telemetry.Setup(ctx, telemetry.Config{
		Version: s.version, LogLevel: s.cfg.Telemetry.LogLevel, LogFormat: s.cfg.Telemetry.LogFormat,
		LogOutput: opt.LogOutput, SpanProcessors: opt.Spans,
	})
	if err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	s.log = s.tel.Logger
	s.onStop(func(ctx context.Context) error { return s.tel.Shutdown(ctx) })
	s.neighbours, err = newNeighbours(s.log, s.tel.MeterProvider, slices.Sorted(maps.Keys(s.probes())))
	return err
}

func (s *Sidecar) startPolicy(_ context.Context, opt Options) error {
	switch {
	case opt.Policy != nil:
		s.swaps = newFixedPolicy(opt.Policy)
	case s.cfg.Policy.Path == "":
		s.log.Warn("no_policy", "effect", "pages are answered uncompressed", "remedy", "set policy.path")
		set, err := policy.Compile(policy.Source{Name: "builtin", Data: []byte(withoutPolicy)})
		if err != nil {
			return err
		}
		s.swaps = newFixedPolicy(set)
	default:
		reloads, err := newReloadCounter(s.tel.MeterProvider, s.log, s.look.forget)
		if err != nil {
			return err
		}
		if s.watcher, err = watch.New(s.cfg.Policy.Path, watch.Options{OnReload: reloads}); err != nil {
			return err
		}
		s.swaps = s.watcher
	}
	s.swaps = told{s.swaps, func(set *policy.Set) { warnPolicy(s.log, set); s.look.forget(set) }}
	s.rules = s.swaps.Current
	warnPolicy(s.log, s.rules())
	return nil
}

func (s *Sidecar) startCompressor(context.Context, Options) (err error) {
	s.compressor = compress.New(s.cfg.PageWorkers())
	s.onStop(func(context.Context) error { s.compressor.Close(); return nil })
	dev, why, err := openGPU(&s.cfg.Compress, s.compressor, s.log, s.tel.MeterProvider)
	if err != nil {
		return err
	}
	s.backend = s.compressor
	if dev != nil {
		s.onStop(func(context.Context) error { dev.Close(); return nil })
		s.backend, why = onGPU{dev}, dev.Info().Name
	}
	known := NewModels(s.cfg.Models)
	if err := known.Load(); err != nil {
		return err
	}
	limits := page.DefaultLimits()
	limits.MaxBytes = int64(s.cfg.Compress.MaxPageBytes)
	s.pipeline, err = pipeline.New(pipeline.Config{
		Policy: s.rules, Compressor: s.backend, Store: s.store, Prefixes: s.prefixes, Claims: s.claims, Models: known, Limits: limits,
		Tracer: s.tel.TracerProvider, Meter: s.tel.MeterProvider, Logger: s.log,
		Observer: s.observer(), Headers: s.headers(), Messages: s.messages(),
	})
	s.log.Info("compressor_ready", "device", s.backend.Device(), "reason", why, "workers", s.compressor.Workers())
	return err
}

func (s *Sidecar) startNATS(_ context.Context, opt Options) (err error) {
	c := &s.cfg.NATS
	if c.URL != "" {
		opts := ConnectOptions(c, s.log)
		opts.Refused = s.neighbours.refuses("nats")
		s.conn, err = transport.Connect(c.URL, opts)
	} else {
		err = s.embedNATS(opt.Users)
	}
	if err != nil {
		return err
	}
	s.onStop(func(context.Context) error { s.conn.Close(); return nil })
	return nil
}

func (s *Sidecar) embedNATS(users []transport.User) (err error) {
	c := &s.cfg.NATS.Embedded
	if c.UsersFile != "" {
		list, err := config.LoadUsers(c.UsersFile)
		if err != nil {
			return err
		}
		for _, u := range list {
			users = append(users, transport.User{Tenant: u.Tenant, Name: u.Name, Password: u.Password})
		}
	}
	dir := s.cfg.Jobs.Dir
	if !s.cfg.Jobs.Enabled {
		dir = ""
	}
	s.nats, err = transport.Embedded(transport.EmbeddedOptions{
		Listen: c.Listen, MaxPayload: int(c.MaxPayload), Users: users, JobsDir: dir, Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.onStop(s.nats.Shutdown)
	for _, w := range s.nats.Warnings() {
		s.log.Warn("nats_warning", "message", w)
	}
	s.conn, err = s.nats.Connect()
	return err
}

// startAdmin binds the admin listener; run serves it.
func (s *Sidecar) startAdmin(_ context.Context, opt Options) (err error) {
	token, err := s.secret(s.cfg.Admin.TokenFile)
	if err != nil {
		return fmt.Errorf("admin.tokenFile: %w", err)
	}
	cfg := proxy.AdminConfig{
		Checks:  s.checks(),
		Metrics: s.tel.Prometheus, Catalog: s, Logger: s.log,
		Version:  map[string]string{"version": s.version, "planes": s.cfg.Planes, "device": s.Device()},
		Policies: s.swaps, Token: token, Writable: s.cfg.Admin.Writable, Requests: s.ring, ServesRequests: s.requests != nil,
		Board: s.look.board, Notes: s.notes, NoPages: s.noPages,
	}
	if s.look.studio != nil {
		cfg.Studio = studioAPI{s.look.studio, opt.TextChars}
	}
	if s.requests != nil && s.requests.verifier != nil {
		cfg.Verify = s.requests.verifier
	}
	if s.admin, err = proxy.ListenAdmin(s.cfg.Admin.Listen, cfg); err != nil {
		return err
	}
	s.onStop(func(context.Context) error { return s.admin.Close() })
	return nil
}

// Run serves until ctx ends, then drains: pages that were accepted are finished and answered, within cfg.DrainTimeout.
func (s *Sidecar) Run(ctx context.Context) error {
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	failed := make(chan error, 8)
	actors := 0
	start := func(f func(context.Context) error) {
		actors++
		go func() { failed <- f(background) }()
	}
	start(s.admin.Serve)
	start(s.watchNeighbours)
	if s.watcher != nil && s.cfg.Policy.Watch {
		start(s.watcher.Run)
	}
	if s.link != nil {
		start(s.link.Run)
	}
	if s.conn != nil && s.nats == nil {
		start(s.watchCredentials)
	}
	if s.jobs != nil {
		start(func(ctx context.Context) error { return s.jobs.Run(ctx, s.plane) })
	}
	s.runProxy(start)
	s.log.Info("serving", "planes", s.cfg.Planes, "nats", s.NATSURL(), "admin", s.admin.URL(), "version", s.version)
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("draining", "timeout", time.Duration(s.cfg.DrainTimeout).String())
	case err = <-failed: // the first part that stops, stops all
		actors--
		s.log.Error("part_stopped", "error", err)
	}
	s.draining.Store(true)
	limit, done := context.WithTimeout(context.WithoutCancel(ctx), time.Duration(s.cfg.DrainTimeout))
	defer done()
	s.drainProxy(limit)
	if s.plane != nil {
		err = errors.Join(err, s.plane.Drain(limit))
	}
	cancel()
	for range actors {
		err = errors.Join(err, <-failed)
	}
	s.log.Info("stopped")
	s.Close()
	return err
}

// AdminURL is where the admin API and the console are.
func (s *Sidecar) AdminURL() string { return s.admin.URL() }

// ProxyURL is where the proxy takes requests; empty where there is none.
func (s *Sidecar) ProxyURL() string {
	if s.requests == nil {
		return ""
	}
	return s.requests.server.URL()
}

// Device is what compresses pages; "none" where another process does.
func (s *Sidecar) Device() string {
	if s.backend == nil {
		return "none"
	}
	return s.backend.Device()
}

// TracerProvider makes the spans of the sidecar.
func (s *Sidecar) TracerProvider() trace.TracerProvider { return s.tel.TracerProvider }

// InstanceName is this process's name in subjects.
func (s *Sidecar) InstanceName() string { return s.instance }

// NATSURL is where clients connect; empty where another process takes pages.
func (s *Sidecar) NATSURL() string {
	switch {
	case s.nats != nil:
		return s.nats.ClientURL()
	case s.conn == nil:
		return ""
	}
	return s.conn.ConnectedUrlRedacted()
}

func (s *Sidecar) onStop(f func(context.Context) error) {
	s.stopped = append(s.stopped, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := f(ctx); err != nil && s.log != nil {
			s.log.Warn("stop_failed", "error", err)
		}
	})
}

// Close stops what has started, last first. It may be called again.
func (s *Sidecar) Close() {
	for i := len(s.stopped) - 1; i >= 0; i-- {
		s.stopped[i]()
	}
	s.stopped = nil
}

// withoutPolicy is the policy of a process that was given none.
const withoutPolicy = "apiVersion: semproxy.io/v1\ntenants: { unknown: { rules: [ { profile: exact } ] } }\n"
