package transport

import (
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Accept takes a page whose descriptor came by a sender's own socket and not over NATS; tenant is the one that NATS has proved the
// socket to be. header is that of the message it would have been. The page is admitted, counted and worked on like every
// other. answer takes the one reply, from any goroutine: it must not wait, and must not keep the message's data; the error
// nats.ErrMaxPayload says that there is no room for the data, and a second reply then says so to the sender.
func (s *Server) Accept(tenant string, header nats.Header, answer func(*nats.Msg) error) {
	subject := strings.Join([]string{subjectRoot, tenant, subjectVersion, string(OpCompress), s.cfg.Instance}, ".")
	limits, named := s.cfg.Limiter.Limits(tenant)
	r := &request{
		msg: &nats.Msg{Subject: subject, Header: header}, answer: answer, tenant: tenant, op: OpCompress,
		arrived: time.Now(), label: s.metrics.label(tenant, named),
	}
	if s.stopping.Load() {
		s.refuseRequest(r, errDraining, s.admission.retryAfter())
		return
	}
	if s.cfg.Memory == nil {
		s.refuseRequest(r, errNoMemory, 0)
		return
	}
	block, err := s.cfg.Memory.Open(tenant, header.Get(HeaderMemory))
	if err != nil {
		e, _ := publicError(s.ctx, err)
		s.refuseRequest(r, e, 0)
		return
	}
	r.block, r.size = block, block.Size()
	s.admit(r, limits)
}

// admit queues r or answers why not.
func (s *Server) admit(r *request, limits Limits) {
	displaced, no := s.admission.admit(r, limits, r.arrived)
	for _, other := range displaced {
		s.refuseRequest(other, errBusy, s.admission.retryAfter())
	}
	if no != nil {
		s.refuseRequest(r, no.err, no.after)
	}
}

// deliver hands a reply over: to whoever brought the request, or to NATS.
func (s *Server) deliver(r *request, reply *nats.Msg) error {
	if r.answer != nil {
		return r.answer(reply)
	}
	return s.cfg.Conn.PublishMsg(reply)
}
