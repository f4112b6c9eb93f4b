package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// Parts of the page plane that can be missing while requests are served.
const (
	partNATS          = "nats"
	partSubscriptions = "subscriptions"
	partPayload       = "max_payload"
	partJobs          = "jobs"
	partJobsRoom      = "jobs_room"
	partStore         = "store"
	partPages         = "page_plane" // the whole of it, in a process of its own
)

const (
	healthEvery  = 2 * time.Second
	healthLimit  = 2 * time.Second
	refusalAgain = time.Minute // a refusal that goes on is logged as often
	askAgain     = 10 * time.Second
	countEvery   = 30 * time.Second
)

// neighbours remembers what NATS, JetStream and Redis refuse, and what of the page plane does not work because of it: for
// the log, once per kind, for metrics and alerts, and for readiness.
type neighbours struct {
	log      *slog.Logger
	refusals metric.Int64Counter

	labels  *semconv.TenantLabel
	mu      sync.Mutex
	bytes   map[string]int64 // stored, by tenant
	said    map[string]saying
	missing map[string]string // part -> why
}

type saying struct {
	at    time.Time
	since int // refusals that were not logged since then
}

// kindsOfRefusal are those that are there at zero, so that the first one is an increase.
var kindsOfRefusal = map[string][]string{
	"redis":     {"OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM", "READONLY", "CLUSTERDOWN", "LOADING", "NOSCRIPTING"},
	"nats":      {"denied_subscribe", "denied_publish", "denied_login", "max_payload", "lame_duck", "away"},
	"jetstream": {"no_room", "removed", "not_enabled", "refused", "away"},
}

func newNeighbours(log *slog.Logger, mp metric.MeterProvider, parts []string) (*neighbours, error) {
	n := &neighbours{log: log, said: map[string]saying{}, missing: map[string]string{}, bytes: map[string]int64{}, labels: semconv.NewTenantLabel(0)}
	meter := mp.Meter(scope)
	var err error
	if n.refusals, err = meter.Int64Counter(semconv.MetricRefusals); err != nil {
		return nil, err
	}
	for who, kinds := range kindsOfRefusal {
		for _, kind := range kinds {
			n.refusals.Add(context.Background(), 0, refusalOf(who, kind))
		}
	}
	degraded, err := meter.Int64ObservableGauge(semconv.MetricDegraded)
	if err != nil {
		return nil, err
	}
	stored, err := meter.Int64ObservableGauge(semconv.MetricStoreBytes)
	if err != nil {
		return nil, err
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for tenant, size := range n.stored() {
			o.ObserveInt64(stored, size, metric.WithAttributes(n.labels.Attribute(tenant)))
		}
		missing := n.degraded()
		for _, part := range parts {
			value := int64(0)
			if missing[part] != "" {
				value = 1
			}
			o.ObserveInt64(degraded, value, metric.WithAttributes(semconv.Part.String(part)))
		}
		return nil
	}, degraded, stored)
	return n, err
}

func refusalOf(who, kind string) metric.MeasurementOption {
	return metric.WithAttributes(semconv.Neighbour.String(who), semconv.Reason.String(kind))
}

// refuses is how a part tells of the refusals of its neighbour. Kinds are few, and named by the parts themselves.
func (n *neighbours) refuses(who string) func(kind string, err error) {
	return func(kind string, err error) {
		n.refusals.Add(context.Background(), 1, refusalOf(who, kind))
		n.mu.Lock()
		defer n.mu.Unlock()
		key := who + " " + kind
		last, known := n.said[key]
		if known && time.Since(last.at) < refusalAgain {
			last.since++
			n.said[key] = last
			return
		}
		n.said[key] = saying{at: time.Now()}
		n.log.Warn("neighbour_refuses", "neighbour", who, "kind", kind, "more_since_last", last.since, "error", err)
	}
}

// note takes in whether a part works.
func (n *neighbours) note(part string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.missing[part]
	switch {
	case why == "" && before != "":
		delete(n.missing, part)
		n.log.Info("page_plane_recovered", "part", part)
	case why != "":
		n.missing[part] = why
		if before == "" {
			n.log.Warn("page_plane_degraded", "part", part, "error", why)
		}
	}
}

// degraded is what does not work, and why.
func (n *neighbours) degraded() map[string]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.missing)
}

func (n *neighbours) stored() map[string]int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.bytes)
}

// countStored asks the store what each tenant that the policy names has in it. Tenants beyond those that metrics tell apart are
// left out.
func (s *Sidecar) countStored(ctx context.Context) {
	names := s.rules().Tenants()
	bytes := make(map[string]int64, len(names))
	for _, tenant := range names[:min(len(names), semconv.DefaultTenantLabels)] {
		limited, cancel := context.WithTimeout(ctx, healthLimit)
		_, size, err := s.store.Usage(limited, tenant)
		cancel()
		if err != nil {
			return // the last numbers stay
		}
		bytes[tenant] = size
	}
	s.neighbours.mu.Lock()
	defer s.neighbours.mu.Unlock()
	s.neighbours.bytes = bytes
}

// watchNeighbours asks every part until ctx ends.
func (s *Sidecar) watchNeighbours(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	asked, counted := time.Now(), time.Time{}
	for {
		if s.plane != nil && time.Since(counted) > countEvery {
			s.countStored(ctx)
			counted = time.Now()
		}
		for part, probe := range s.probes() {
			limited, cancel := context.WithTimeout(ctx, healthLimit)
			err := probe(limited)
			cancel()
			if ctx.Err() != nil {
				return nil
			}
			s.neighbours.note(part, err)
		}
		if s.plane != nil && time.Since(asked) > askAgain {
			asked = time.Now()
			s.takeUp(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// takeUp asks NATS again for what it has refused, and for what a reload may have changed.
func (s *Sidecar) takeUp(ctx context.Context) {
	if s.plane.Denied() != nil {
		if err := s.plane.Resubscribe(); err != nil {
			s.log.Warn("resubscribe_failed", "error", err)
		}
	}
	if s.nats == nil {
		if err := s.plane.TakeUpPayload(ctx); err != nil {
			s.log.Warn("nats_reconnect_failed", "error", err)
		}
	}
}

// probes are the questions by part.
func (s *Sidecar) probes() map[string]func(context.Context) error {
	if !s.cfg.RunsPages() {
		return map[string]func(context.Context) error{partPages: s.pagesRun}
	}
	return map[string]func(context.Context) error{
		partNATS: s.connected, partSubscriptions: s.subscribed, partPayload: s.roomForPages,
		partJobs: s.TakesJobs, partJobsRoom: s.jobsHaveRoom, partStore: s.stored,
	}
}

// subscribed says why requests of senders do not reach this sidecar. Without a connection that is said by connected alone.
func (s *Sidecar) subscribed(ctx context.Context) error {
	if !s.conn.IsConnected() {
		return nil
	}
	return s.plane.Confirm(ctx)
}

// enoughPayload is what docs/reference/page-plane.md asks the NATS servers for.
const enoughPayload = 8 << 20

func (s *Sidecar) roomForPages(context.Context) error {
	if s.nats != nil || !s.conn.IsConnected() {
		return nil
	}
	if most := s.conn.MaxPayload(); most < enoughPayload {
		return fmt.Errorf("the NATS server's max_payload is %d bytes: larger pages and replies are refused; set it to %d", most, enoughPayload)
	}
	return nil
}

func (s *Sidecar) jobsHaveRoom(context.Context) error {
	if s.jobs == nil {
		return nil
	}
	if none := s.jobs.NoRoom(); len(none) > 0 {
		return fmt.Errorf("JetStream has no room for the jobs of %d tenants, such as %s", len(none), none[0])
	}
	return nil
}

var errNotWritable = errors.New("redis takes no writes by scripts")

// scope is the name of the sidecar's instruments in metrics. It is the package in which they were first: dashboards may ask for it.
const scope = "github.com/semproxy/semproxy/cmd/semproxy"
