package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// Streams of a tenant: what waits, what became of it, what failed for good.
const (
	waiting = "SEMPROXY_JOBS_"
	results = "SEMPROXY_DONE_"
	dead    = "SEMPROXY_DEAD_"
)

// durable is the consumer that all sidecars share.
const durable = "semproxy"

// duplicates is how long JetStream remembers the ids of jobs.
const duplicates = 2 * time.Minute

// Tenant is a tenant that may have jobs. MaxBytes bounds those that wait; 0: the runner's default.
type Tenant struct {
	Name     string
	MaxBytes int64
}

// Senders cannot publish to these, nor have a reply sent there: in one account with them, JetStream's answer to a page of
// one tenant, sent to a reply subject that it chose, would else become a job of another.
func jobSubject(tenant string) string  { return "semproxy.jobs." + tenant }
func deadSubject(tenant string) string { return "semproxy.dead." + tenant }

// workSubject is where a sidecar notes that it works on a job, by the job's place in its stream. It is kept with the outcomes.
func workSubject(tenant, seq string) string { return "semproxy.work." + tenant + "." + seq }

// DoneSubject is where the outcome of a tenant's job is published.
func DoneSubject(tenant, job string) string { return "kv." + tenant + ".v1.done." + job }

// ValidID reports whether id can name a job: a subject token of letters, digits, underscores and hyphens.
func ValidID(id string) bool { return transport.ValidTenant(id) }

// ErrNoRoom is why a tenant has no jobs: JetStream reserves the most bytes of each stream, and has not so many left.
var ErrNoRoom = errors.New("JetStream has no room for this tenant's streams: give it more storage, or lower jobs.maxBytes")

// errNoStorage and errNoResources are JetStream's numbers for a stream that it has no room for.
const (
	errNoStorage   jetstream.ErrorCode = 10047
	errNoResources jetstream.ErrorCode = 10023
)

func noRoom(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == errNoStorage || api.ErrorCode == errNoResources)
}

// ensure makes a tenant's streams and the consumer, or brings their limits up to date. One tenant is made whole before the
// next: where there is no room for all, some have jobs and the others are told (ErrNoRoom). What jobs go into is made last.
func (r *Runner) ensure(ctx context.Context, t Tenant) (jetstream.Stream, jetstream.Consumer, error) {
	r.making.Lock()
	defer r.making.Unlock()
	var stream jetstream.Stream
	var made []string
	for _, c := range r.streams(t) {
		_, err := r.js.Stream(ctx, c.Name)
		isNew := errors.Is(err, jetstream.ErrStreamNotFound)
		if stream, err = r.js.CreateOrUpdateStream(ctx, c); err != nil {
			if noRoom(err) {
				for _, name := range made { // new and empty: others may use what they hold
					_ = r.js.DeleteStream(ctx, name)
				}
				err = fmt.Errorf("%w (%w)", ErrNoRoom, err)
			}
			return nil, nil, fmt.Errorf("stream %s: %w", c.Name, err)
		}
		if isNew {
			made = append(made, c.Name)
		}
	}
	consumer, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: durable, AckPolicy: jetstream.AckExplicitPolicy, AckWait: r.cfg.AckWait, MaxDeliver: -1,
		MaxAckPending: r.cfg.InHand, HeadersOnly: true,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("consumer of %s: %w", waiting+t.Name, err)
	}
	return stream, consumer, nil
}

// streams are those of a tenant, that of its jobs last.
func (r *Runner) streams(t Tenant) []jetstream.StreamConfig {
	limit := t.MaxBytes
	if limit <= 0 {
		limit = r.cfg.MaxBytes
	}
	all := []jetstream.StreamConfig{
		{
			Name: results + t.Name, Subjects: []string{DoneSubject(t.Name, "*"), workSubject(t.Name, "*")}, Description: "what became of jobs",
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxMsgsPerSubject: 1,
			MaxAge: r.cfg.KeepResults, MaxBytes: r.cfg.ResultBytes, AllowDirect: true,
		},
		{
			Name: dead + t.Name, Subjects: []string{deadSubject(t.Name)}, Description: "jobs that can never succeed, with the reason",
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
			MaxAge: r.cfg.KeepDead, MaxBytes: r.cfg.DeadBytes, AllowDirect: true,
		},
		{
			Name: waiting + t.Name, Subjects: []string{jobSubject(t.Name)}, Description: "pages to be compressed",
			Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew, MaxBytes: limit, AllowDirect: true,
		},
	}
	for i := range all {
		all[i].Storage, all[i].Replicas, all[i].Duplicates = jetstream.FileStorage, r.cfg.Replicas, duplicates
	}
	return all
}

// tenantOf is the tenant of a stream with that prefix, or "".
func tenantOf(stream, prefix string) string {
	tenant, ok := strings.CutPrefix(stream, prefix)
	if !ok || !transport.ValidTenant(tenant) {
		return ""
	}
	return tenant
}
