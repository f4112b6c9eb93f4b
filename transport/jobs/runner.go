package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/metric"

	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport"
)

const scope = "github.com/semproxy/semproxy/transport/jobs"

// Runner takes the jobs of every tenant to a queue and settles them. Make it with [New], run it with [Runner.Run].
type Runner struct {
	cfg     Config
	name    string // in its notes of work; another in each process
	js      jetstream.JetStream
	metrics metric.Int64Counter
	labels  *semconv.TenantLabel

	mu     sync.Mutex
	faults map[string]error // by tenant: why its jobs are not taken now
	making sync.Mutex       // held while a tenant's streams are made

	settling sync.WaitGroup
}

var _ transport.Jobs = (*Runner)(nil)

// New makes a runner that does nothing yet.
func New(cfg Config) (*Runner, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Runner{cfg: cfg, name: rand.Text(), faults: make(map[string]error), labels: semconv.NewTenantLabel(0)}
	if r.js, err = jetstream.New(cfg.Conn); err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	if r.metrics, err = cfg.MeterProvider.Meter(scope).Int64Counter(semconv.MetricJobs, metric.WithUnit("{job}")); err != nil {
		return nil, fmt.Errorf("jobs: make metrics: %w", err)
	}
	return r, nil
}

// Run takes jobs until ctx ends. Jobs that the queue has are settled by it; Run waits for that, so the queue is drained
// first or at the same time.
func (r *Runner) Run(ctx context.Context, queue Queue) error {
	type running struct {
		limit int64
		stop  context.CancelFunc
		ended chan struct{}
	}
	all := make(map[string]*running)
	stop := func(name string) {
		t := all[name]
		t.stop()
		<-t.ended
		delete(all, name)
	}
	defer func() {
		for name := range all {
			stop(name)
		}
		r.settling.Wait()
	}()
	tick := time.NewTicker(r.cfg.Refresh)
	defer tick.Stop()
	for {
		wanted := make(map[string]bool)
		for _, t := range r.cfg.Tenants() {
			wanted[t.Name] = true
			if old := all[t.Name]; old != nil {
				if old.limit == t.MaxBytes {
					continue
				}
				stop(t.Name) // its streams get their new limits
			}
			one := &running{limit: t.MaxBytes, ended: make(chan struct{})}
			var inner context.Context
			inner, one.stop = context.WithCancel(ctx)
			all[t.Name] = one
			go func() {
				defer close(one.ended)
				r.follow(inner, t, queue)
			}()
		}
		for name := range all {
			if !wanted[name] { // its streams stay: an operator removes them
				stop(name)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ready says why jobs are not taken now; nil when those of every tenant are that JetStream has room for.
func (r *Runner) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]error, 0, len(r.faults))
	for tenant, err := range r.faults {
		if !errors.Is(err, ErrNoRoom) {
			all = append(all, fmt.Errorf("jobs of %s: %w", tenant, err))
		}
	}
	return errors.Join(all...)
}

// NoRoom lists the tenants that JetStream has no room for, by name.
func (r *Runner) NoRoom() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []string{}
	for tenant, err := range r.faults {
		if errors.Is(err, ErrNoRoom) {
			all = append(all, tenant)
		}
	}
	slices.Sort(all)
	return all
}

// hasNoRoom reports whether that is why a tenant has no jobs.
func (r *Runner) hasNoRoom(tenant string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Is(r.faults[tenant], ErrNoRoom)
}

func (r *Runner) fault(tenant string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.faults, tenant)
		return
	}
	r.faults[tenant] = err
}

// Pauses after a fault of JetStream: an outage passes, room is made by a person.
const (
	retry     = time.Second
	retryRoom = 10 * time.Second
	sayAgain  = time.Minute // a fault that goes on is logged as often
)

// follow takes one tenant's jobs until ctx ends.
func (r *Runner) follow(ctx context.Context, t Tenant, queue Queue) {
	defer r.fault(t.Name, nil)
	r.fault(t.Name, errors.New("its streams are being made"))
	last, said := "", time.Time{}
	for ctx.Err() == nil {
		err := r.pull(ctx, t, queue)
		if ctx.Err() != nil {
			return
		}
		r.fault(t.Name, err)
		kind := kindOf(err)
		r.cfg.Refused(kind, err)
		if kind != last || time.Since(said) > sayAgain {
			r.cfg.Logger.Warn("jobs_interrupted", "tenant", t.Name, "kind", kind, "error", err)
			last, said = kind, time.Now()
		}
		wait := retry
		if errors.Is(err, ErrNoRoom) {
			wait = retryRoom
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// kindOf classifies what JetStream answers.
func kindOf(err error) string {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, ErrNoRoom):
		return "no_room"
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return "not_enabled"
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerDeleted),
		errors.Is(err, jetstream.ErrConsumerNotFound):
		return "removed"
	case errors.Is(err, nats.ErrPermissionViolation):
		return "denied"
	case errors.As(err, &api):
		return "refused"
	}
	return "away"
}

// pull takes jobs until something fails or ctx ends.
func (r *Runner) pull(ctx context.Context, t Tenant, queue Queue) error {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, consumer, err := r.ensure(limited, t)
	if err != nil {
		return err
	}
	// Few are asked for ahead: what waits here is not known to be alive by the server.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(4), jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return err
	}
	defer messages.Stop()
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	r.fault(t.Name, nil)
	for {
		msg, err := messages.Next()
		if err != nil {
			return err
		}
		if err := r.take(ctx, t.Name, stream, msg, queue); err != nil {
			return err
		}
	}
}

// callTime bounds one call of JetStream: when the connection is lost its answer never comes, and who waits for it holds a
// worker. The call is repeated by whoever sees it fail.
const callTime = 2 * time.Second

// publish keeps msg in its stream.
func (r *Runner) publish(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return r.js.PublishMsg(ctx, msg, opts...)
}

// keep is publish of what belongs to a tenant's own streams: those that somebody has removed are made again.
func (r *Runner) keep(ctx context.Context, tenant string, msg *nats.Msg) error {
	_, err := r.publish(ctx, msg)
	for try := 0; try < 2 && err != nil && ctx.Err() == nil; try++ {
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			r.cfg.Refused("removed", err)
			r.heal(ctx, tenant)
		}
		_, err = r.publish(ctx, msg)
	}
	return err
}

// heal makes a tenant's streams again.
func (r *Runner) heal(ctx context.Context, tenant string) {
	for _, t := range r.cfg.Tenants() {
		if t.Name != tenant {
			continue
		}
		if _, _, err := r.ensure(ctx, t); err != nil {
			r.cfg.Refused(kindOf(err), err)
			return
		}
		r.cfg.Logger.Warn("jobs_streams_made_again", "tenant", tenant)
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runner) count(tenant, outcome string) {
	r.metrics.Add(context.Background(), 1, metric.WithAttributes(semconv.Outcome.String(outcome), r.labels.Attribute(tenant)))
}
