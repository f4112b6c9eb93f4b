package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// Admin is what an operator does with jobs: look, and send dead letters again or drop them.
type Admin struct {
	js jetstream.JetStream
	nc *nats.Conn
}

// NewAdmin works on nc, which stays the caller's and whose user may use JetStream.
func NewAdmin(nc *nats.Conn) (*Admin, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("jobs: %w", err)
	}
	return &Admin{js: js, nc: nc}, nil
}

// State is what a tenant's jobs are doing.
type State struct {
	Tenant       string `json:"tenant"`
	Waiting      uint64 `json:"waiting"` // not given out, or given back
	InHand       int    `json:"in_hand"` // given out to a sidecar
	WaitingBytes uint64 `json:"waiting_bytes"`
	MaxBytes     int64  `json:"max_bytes"`
	Dead         uint64 `json:"dead"`
	DeadBytes    uint64 `json:"dead_bytes"`
}

// States lists every tenant that has a stream of jobs, by name.
func (o *Admin) States(ctx context.Context) ([]State, error) {
	var all []State
	list := o.js.ListStreams(ctx)
	for info := range list.Info() {
		tenant := tenantOf(info.Config.Name, waiting)
		if tenant == "" {
			continue
		}
		s := State{Tenant: tenant, Waiting: info.State.Msgs, WaitingBytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes}
		if c, err := o.js.Consumer(ctx, info.Config.Name, durable); err == nil {
			s.InHand = c.CachedInfo().NumAckPending
			s.Waiting -= min(s.Waiting, uint64(s.InHand))
		}
		if d, err := o.js.Stream(ctx, dead+tenant); err == nil {
			s.Dead, s.DeadBytes = d.CachedInfo().State.Msgs, d.CachedInfo().State.Bytes
		}
		all = append(all, s)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	slices.SortFunc(all, func(a, b State) int {
		if a.Tenant < b.Tenant {
			return -1
		}
		return 1
	})
	return all, nil
}

// DeadLetter is a dead letter.
type DeadLetter struct {
	Number  uint64    `json:"number"` // names it, with the tenant
	Job     string    `json:"job"`
	Code    string    `json:"code"`
	Reason  string    `json:"reason"`
	Tries   int       `json:"tries"`
	Bytes   int       `json:"bytes"`
	Partial bool      `json:"partial,omitempty"` // only the page's head was kept: it cannot be sent again
	Time    time.Time `json:"time"`
}

// DeadLetters lists a tenant's dead letters, the oldest first. No page is read.
func (o *Admin) DeadLetters(ctx context.Context, tenant string) ([]DeadLetter, error) {
	stream, err := o.dead(ctx, tenant)
	if err != nil {
		return nil, err
	}
	n := stream.CachedInfo().State.Msgs
	if n == 0 {
		return nil, nil
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return nil, fmt.Errorf("read dead letters of %s: %w", tenant, err)
	}
	all := make([]DeadLetter, 0, n)
	for uint64(len(all)) < n && ctx.Err() == nil {
		batch, err := consumer.Fetch(int(min(n-uint64(len(all)), 500)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return nil, fmt.Errorf("read dead letters of %s: %w", tenant, err)
		}
		before := len(all)
		for msg := range batch.Messages() {
			all = append(all, letterOf(msg))
		}
		if len(all) == before { // the oldest went while we read
			break
		}
	}
	return all, ctx.Err()
}

func letterOf(msg jetstream.Msg) (l DeadLetter) {
	h := msg.Headers()
	l.Job, l.Code, l.Reason, l.Partial = h.Get(HeaderJob), h.Get(transport.HeaderCode), h.Get(HeaderReason), h.Get(HeaderPartial) == "true"
	l.Tries, _ = strconv.Atoi(h.Get(HeaderTries))
	l.Bytes, _ = strconv.Atoi(h.Get(sizeHeader))
	if meta, err := msg.Metadata(); err == nil {
		l.Number, l.Time = meta.Sequence.Stream, meta.Timestamp
	}
	return l
}

func (o *Admin) dead(ctx context.Context, tenant string) (jetstream.Stream, error) {
	if !transport.ValidTenant(tenant) {
		return nil, fmt.Errorf("tenant %q: the name must be 1 to 64 letters, digits, underscores or hyphens", tenant)
	}
	stream, err := o.js.Stream(ctx, dead+tenant)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("tenant %s has no jobs on this NATS system", tenant)
	case err != nil:
		return nil, fmt.Errorf("dead letters of %s: %w", tenant, err)
	}
	return stream, nil
}

// ErrPartial is Replay's error for a letter that holds only the head of its page.
var ErrPartial = errors.New("only the head of the page was kept: its sender must send it again")

// ErrDamaged is Replay's error for a letter whose page is not the one that was kept.
var ErrDamaged = errors.New("the page's bytes were changed in the stream: its sender must send it again")

// Replay sends a dead letter's page again as a job of the same id, and drops the letter. Done twice, it makes one job.
func (o *Admin) Replay(ctx context.Context, tenant string, number uint64) error {
	stream, err := o.dead(ctx, tenant)
	if err != nil {
		return err
	}
	raw, err := stream.GetMsg(ctx, number)
	if err != nil {
		return fmt.Errorf("dead letter %d of %s: %w", number, tenant, err)
	}
	if raw.Header.Get(HeaderPartial) == "true" {
		return fmt.Errorf("dead letter %d of %s: %w", number, tenant, ErrPartial)
	}
	if want := raw.Header.Get(HeaderDigest); want != "" && want != digestOf(raw.Data) {
		return fmt.Errorf("dead letter %d of %s: %w", number, tenant, ErrDamaged)
	}
	msg := &nats.Msg{Subject: jobSubject(tenant), Data: raw.Data, Header: nats.Header{
		HeaderJob: {raw.Header.Get(HeaderJob)}, HeaderDigest: {digestOf(raw.Data)},
		// No sender's id has a dot: none suppresses this.
		jetstream.MsgIDHeader: {"replay." + strconv.FormatUint(number, 10)},
	}}
	if _, err := o.js.PublishMsg(ctx, msg); err != nil {
		return fmt.Errorf("send dead letter %d of %s again: %w", number, tenant, err)
	}
	return o.Drop(ctx, tenant, number)
}

// Drop deletes a dead letter.
func (o *Admin) Drop(ctx context.Context, tenant string, number uint64) error {
	stream, err := o.dead(ctx, tenant)
	if err == nil {
		err = stream.DeleteMsg(ctx, number)
	}
	if err != nil {
		return fmt.Errorf("drop dead letter %d of %s: %w", number, tenant, err)
	}
	return nil
}
