package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// job is one page in hand.
type job struct {
	runner *Runner
	tenant string
	id     string // names its outcome
	seq    uint64
	size   int64
	tries  uint64 // how often it was given out
	stream jetstream.Stream
	msg    jetstream.Msg
	alive  *time.Timer // tells the server that it is worked on
	ended  atomic.Bool
	deaths int         // sidecars that ended while they worked on it
	noted  atomic.Bool // that this one does
}

// errStopping ends the pulling of jobs of a sidecar that drains.
var errStopping = errors.New("this sidecar is stopping")

// take offers a job to the queue until it is admitted or refused for good.
func (r *Runner) take(ctx context.Context, tenant string, stream jetstream.Stream, msg jetstream.Msg, queue Queue) error {
	j := &job{runner: r, tenant: tenant, stream: stream, msg: msg}
	meta, err := msg.Metadata()
	if err != nil {
		return nil // not a job; JetStream's messages have it
	}
	j.seq, j.tries = meta.Sequence.Stream, meta.NumDelivered
	j.id = msg.Headers().Get(HeaderJob)
	j.size, _ = strconv.ParseInt(msg.Headers().Get(sizeHeader), 10, 64)
	j.alive = time.AfterFunc(r.cfg.AckWait/3, j.inProgress)
	if j.tries > uint64(r.cfg.MaxDeliveries) {
		r.settle(j, transport.Reply{}, transport.NewError(CodeGaveUp, "the job was tried "+strconv.Itoa(r.cfg.MaxDeliveries)+" times without an outcome"), 0)
		return nil
	}
	offer := &transport.Job{
		Tenant: tenant, Subject: msg.Subject(), Header: msg.Headers(), Size: j.size, Read: j.read,
		Done: func(_ context.Context, reply transport.Reply, e *transport.Error, after time.Duration) {
			r.settle(j, reply, e, after)
		},
	}
	for {
		after, refused := queue.Offer(offer)
		switch {
		case refused == nil:
			return nil
		case !transport.Retryable(refused.Code()):
			r.settle(j, transport.Reply{}, refused, 0)
			return nil
		case refused.Code() == transport.CodeDraining || !pause(ctx, after):
			r.settle(j, transport.Reply{}, refused, 0) // for another sidecar
			return errStopping
		}
	}
}

const sizeHeader = "Nats-Msg-Size"

// inProgress is called while the job is in hand.
func (j *job) inProgress() {
	if j.ended.Load() || j.msg.InProgress() != nil {
		return
	}
	j.alive.Reset(j.runner.cfg.AckWait / 3)
	if j.ended.Load() {
		j.alive.Stop()
	}
}

func (j *job) end() {
	j.ended.Store(true)
	j.alive.Stop()
}

// fetch reads the page and holds it against its digest. A page that is not what was kept is returned with the error.
func (j *job) fetch(ctx context.Context) ([]byte, error) {
	// Not found is no reason to give up: a replica that lags behind may have been asked.
	ctx, cancel := context.WithTimeout(ctx, 2*callTime)
	defer cancel()
	raw, err := j.stream.GetMsg(ctx, j.seq)
	if err != nil {
		return nil, transport.NewError(transport.CodeBusy, "the job's page cannot be read from its stream now")
	}
	want := j.msg.Headers().Get(HeaderDigest)
	if int64(len(raw.Data)) != j.size || (want != "" && digestOf(raw.Data) != want) {
		return append([]byte{}, raw.Data...), transport.NewError(codeDamaged, "the job's page is not the one that was handed over: its bytes were changed in the stream")
	}
	return raw.Data, nil
}

func digestOf(page []byte) string {
	sum := sha256.Sum256(page)
	return hex.EncodeToString(sum[:])
}

// settle ends a job in the background: the worker that made the outcome goes on. reply's body is not used.
func (r *Runner) settle(j *job, reply transport.Reply, e *transport.Error, after time.Duration) {
	r.settling.Go(func() {
		defer j.end()
		ctx, cancel := context.WithTimeout(context.Background(), r.cfg.AckWait)
		defer cancel()
		switch {
		case e == nil:
			r.done(ctx, j, reply)
		case transport.Retryable(e.Code()):
			j.giveBack(ctx)
			r.again(j, e, after)
		default:
			r.bury(ctx, j, e)
		}
	})
}

// done tells the outcome, then acknowledges and waits for the confirmation. A job whose outcome could not be told comes again, and its cores are stored.
func (r *Runner) done(ctx context.Context, j *job, reply transport.Reply) {
	header := nats.Header{transport.HeaderStatus: {transport.StatusOK}}
	for k, v := range reply.Header {
		header.Set(k, v)
	}
	if err := r.tell(ctx, j, header, nil); err != nil {
		r.cfg.Logger.Warn("job_outcome_not_told", "tenant", j.tenant, "job", j.id, "error", err)
		return
	}
	acked, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if err := j.msg.DoubleAck(acked); err != nil {
		r.cfg.Logger.Warn("job_not_acknowledged", "tenant", j.tenant, "job", j.id, "error", err)
		return
	}
	r.count(j.tenant, outcomeDone)
}

// Values of the outcome of jobs in metrics.
const (
	outcomeDone  = "done"
	outcomeDead  = "dead"
	outcomeAgain = "again"
)

// tell publishes the outcome and waits until it is kept.
func (r *Runner) tell(ctx context.Context, j *job, header nats.Header, body []byte) error {
	header.Set(HeaderJob, j.id)
	msg := &nats.Msg{Subject: DoneSubject(j.tenant, j.id), Header: header, Data: body}
	if d := j.msg.Headers().Get(HeaderDigest); d != "" {
		header.Set(HeaderDigest, d)
	}
	return r.keep(ctx, j.tenant, msg)
}

// Bounds of the pause before a job is given out again: doubled with each try, varied at random.
const (
	minAgain = 100 * time.Millisecond
	maxAgain = 30 * time.Second
)

// again gives the job back for later.
func (r *Runner) again(j *job, e *transport.Error, after time.Duration) {
	r.count(j.tenant, outcomeAgain)
	delay := max(after, minAgain)
	if e.Code() != transport.CodeDraining {
		delay = min(delay<<min(j.tries-1, 10), maxAgain)
	}
	delay += rand.N(delay/2 + 1)
	if err := j.msg.NakWithDelay(delay); err != nil { // then it comes again after AckWait
		r.cfg.Logger.Warn("job_not_given_back", "tenant", j.tenant, "job", j.id, "error", err)
	}
}
