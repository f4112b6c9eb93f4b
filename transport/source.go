package transport

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
)

// HeaderMemory marks a request whose page, and a reply whose body, lies in shared memory: its value is the descriptor,
// and the message's own body is empty. transport/shm has the format.
const HeaderMemory = "Semproxy-Shm"

// Memory finds pages in memory that is shared with senders of this machine. *shm.Server is one. Errors have a code.
type Memory interface {
	// Attach binds the sender that holds challenge to tenant.
	Attach(tenant, challenge string) error
	// Open finds the page that descriptor names for tenant. Nothing of it is read: its size is admitted first.
	Open(tenant, descriptor string) (Block, error)
}

// Block is one page in shared memory and the room for its reply.
type Block interface {
	Size() int64
	// Read copies the page out. The bytes are valid until Close and nobody else writes to them.
	Read() ([]byte, error)
	// Write lays body where the sender wants its reply and describes it; false where it does not fit or may not be
	// written: then the reply goes over NATS.
	Write(body []byte) (descriptor string, ok bool)
	Close()
}

// Jobs keeps pages whose senders do not wait, and tells what became of them. *jobs.Runner is one.
type Jobs interface {
	// Submit keeps a page; when it returns, the page outlives every process. header is that of the sender's message.
	Submit(ctx context.Context, tenant string, header nats.Header, page []byte) (Reply, error)
	// Result is what became of a job.
	Result(ctx context.Context, tenant, job string) (Reply, error)
}

// Job is a page whose sender does not wait: it is admitted and worked on like a request, and its outcome goes to Done.
type Job struct {
	Tenant  string
	Subject string
	Header  nats.Header // with the sender's trace context
	Size    int64       // what admission counts
	// Read fetches the page. A worker calls it, so that no page is read before it was admitted.
	Read func(ctx context.Context) ([]byte, error)
	// Done is told the outcome, once, and must not keep the reply's body. err is nil for a success; after is how long
	// to wait before a retryable error is tried again. ctx has the page's span and may have ended.
	Done func(ctx context.Context, reply Reply, err *Error, after time.Duration)
}

// Offer admits a job to the queue of its tenant. A refusal is the error that a request would be answered with and how
// long to wait; Done is then not called.
func (s *Server) Offer(j *Job) (after time.Duration, refused *Error) {
	limits, named := s.cfg.Limiter.Limits(j.Tenant)
	r := &request{
		msg: &nats.Msg{Subject: j.Subject, Header: j.Header}, job: j, tenant: j.Tenant, op: OpCompress, size: j.Size,
		arrived: time.Now(), label: s.metrics.label(j.Tenant, named),
	}
	if s.refuse.Load() {
		return s.admission.retryAfter(), errDraining
	}
	displaced, no := s.admission.admit(r, limits, r.arrived)
	for _, other := range displaced {
		s.refuseRequest(other, errBusy, s.admission.retryAfter())
	}
	if no != nil {
		s.metrics.countError(s.ctx, r, no.err.code)
		return no.after, no.err
	}
	return 0, nil
}

// load brings the request's body into this process.
func (r *request) load(ctx context.Context) (err error) {
	switch {
	case r.block != nil:
		r.msg.Data, err = r.block.Read()
	case r.job != nil:
		r.msg.Data, err = r.job.Read(ctx)
	}
	return err
}

// close lets go of the request's body, which nobody uses any more.
func (r *request) close() {
	if r.block != nil {
		r.block.Close()
	}
}
