package jobs

import (
	"context"
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

// DoneSubject is where the outcome of a tenant's job is published.
func DoneSubject(tenant, job string) string { return "kv." + tenant + ".v1.done." + job }

// ValidID reports whether id can name a job: a subject token of letters, digits, underscores and hyphens.
func ValidID(id string) bool { return transport.ValidTenant(id) }

// ensure makes a tenant's streams and the consumer, or brings their limits up to date.
func (r *Runner) ensure(ctx context.Context, t Tenant) (jetstream.Stream, jetstream.Consumer, error) {
	limit := t.MaxBytes
	if limit <= 0 {
		limit = r.cfg.MaxBytes
	}
	configs := []jetstream.StreamConfig{
		{
			Name: results + t.Name, Subjects: []string{DoneSubject(t.Name, "*")}, Description: "what became of jobs",
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
	var stream jetstream.Stream
	for _, c := range configs {
		c.Storage, c.Replicas, c.Duplicates = jetstream.FileStorage, r.cfg.Replicas, duplicates
		var err error
		if stream, err = r.js.CreateOrUpdateStream(ctx, c); err != nil {
			return nil, nil, fmt.Errorf("stream %s: %w", c.Name, err)
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

// tenantOf is the tenant of a stream with that prefix, or "".
func tenantOf(stream, prefix string) string {
	tenant, ok := strings.CutPrefix(stream, prefix)
	if !ok || !transport.ValidTenant(tenant) {
		return ""
	}
	return tenant
}
