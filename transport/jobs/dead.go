package jobs

import (
	"context"
	"encoding/binary"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/transport"
)

// Codes of this package.
const (
	CodeFull    = codes.LimitJobs  // as many bytes of jobs wait as the tenant may have; retryable
	CodeBadID   = codes.JobBadID   // final
	CodeGaveUp  = codes.JobGaveUp  // tried too often; final
	CodePending = codes.JobPending // no outcome yet; retryable
	CodeNoRoom  = codes.JobNoRoom  // JetStream has no room for the tenant's jobs; final
	CodeTaken   = codes.JobIDTaken // another page has that id; final
	CodePoison  = codes.JobPoison  // whoever works on it dies; final
	codeDamaged = codes.JobDamaged // the page is not the one that was kept; final
)

// Headers of outcomes and dead letters, beside those of a reply.
const (
	HeaderJob     = "Semproxy-Job"       // the job's id
	HeaderAgain   = "Semproxy-Duplicate" // reply to a job: true where it was kept before
	HeaderReason  = "Semproxy-Error"     // dead letter: the sentence
	HeaderPartial = "Semproxy-Partial"   // dead letter: true where only the head of the page is kept
	HeaderTries   = "Semproxy-Tries"     // dead letter: how often the job was given out
	HeaderDigest  = "Semproxy-Digest"    // SHA-256 of the page, hexadecimal
	HeaderState   = "Semproxy-State"     // note of work: working, or back (given back by whoever had it)
	HeaderDeaths  = "Semproxy-Deaths"    // note of work: sidecars that ended while they worked on the job
	HeaderWorker  = "Semproxy-Worker"    // note of work: who made it, a name at random for each Runner
)

// maxHead bounds what is kept of a page that is too long for a dead letter.
const maxHead = 64 << 10

// bury makes a dead letter of a job, tells the outcome and ends the job. What fails is tried again when the job comes again.
func (r *Runner) bury(ctx context.Context, j *job, e *transport.Error) {
	log := r.cfg.Logger.With("tenant", j.tenant, "job", j.id, "code", e.Code())
	page, err := j.fetch(ctx)
	if err != nil && page == nil {
		r.again(j, e, 0)
		return
	}
	letter := &nats.Msg{Subject: deadSubject(j.tenant), Data: page, Header: nats.Header{
		transport.HeaderStatus: {transport.StatusError}, transport.HeaderCode: {e.Code()},
		HeaderReason: {e.Error()}, HeaderJob: {j.id}, HeaderTries: {strconv.FormatUint(j.tries, 10)}, HeaderDigest: {digestOf(page)},
		// A job that comes again because its end was not heard makes one letter, not two.
		jetstream.MsgIDHeader: {strconv.FormatUint(j.seq, 10)},
	}}
	for _, name := range []string{"traceparent", "tracestate"} {
		if v := transport.HeaderCarrier(j.msg.Headers()).Get(name); v != "" {
			letter.Header.Set(name, v)
		}
	}
	if int64(letter.Size()) > r.cfg.Conn.MaxPayload()-1024 {
		letter.Data = head(page)
		letter.Header.Set(HeaderPartial, "true")
	}
	if err := r.keep(ctx, j.tenant, letter); err != nil {
		log.Warn("dead_letter_not_kept", "error", err)
		return
	}
	outcome := nats.Header{transport.HeaderStatus: {transport.StatusError}, transport.HeaderCode: {e.Code()}, transport.HeaderRetryable: {"false"}}
	if err := r.tell(ctx, j, outcome, []byte(e.Error())); err != nil {
		log.Warn("job_outcome_not_told", "error", err)
		return
	}
	r.count(j.tenant, outcomeDead)
	log.Warn("job_dead", "reason", e.Error())
	if err := j.msg.TermWithReason(e.Code()); err != nil {
		log.Warn("job_not_ended", "error", err)
	}
}

// head is the safetensors header of a page, or what may be one.
func head(page []byte) []byte {
	n := min(len(page), maxHead)
	if len(page) >= 8 {
		if h := binary.LittleEndian.Uint64(page); h <= uint64(n-8) {
			n = 8 + int(h)
		}
	}
	return page[:n]
}

var errBadID = transport.NewError(CodeBadID, "a job's id is 1 to 64 letters, digits, underscores or hyphens")

// Result implements transport.Results: what was told of a job.
func (r *Runner) Result(ctx context.Context, tenant, id string) (transport.Reply, error) {
	if !ValidID(id) {
		return transport.Reply{}, errBadID
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	stream, err := r.js.Stream(ctx, results+tenant)
	var msg *jetstream.RawStreamMsg
	if err == nil {
		msg, err = stream.GetLastMsgForSubject(ctx, DoneSubject(tenant, id))
	}
	if err != nil {
		// A job that nobody knows looks the same as one that waits: the stream of jobs cannot be asked by id.
		return transport.Reply{}, transport.NewError(CodePending, "nothing has been told of that job")
	}
	if code := msg.Header.Get(transport.HeaderCode); code != "" {
		return transport.Reply{}, transport.NewError(code, string(msg.Data))
	}
	header := make(map[string]string, len(msg.Header))
	for k := range msg.Header {
		header[k] = msg.Header.Get(k)
	}
	return transport.Reply{Header: header}, nil
}
