package shm

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
)

// page hands the page that d describes to the plane; false where the socket must end. The answer says the same as the reply of NATS would.
func (s *Server) page(p *sender, d demand) bool {
	if d.ID == 0 {
		return p.say(answer{Code: CodeBadDescriptor, Error: "a page needs an id other than 0"})
	}
	s.mu.Lock()
	tenant, take := p.tenant, s.take
	proved := tenant != "" && time.Since(p.proved) < s.cfg.Proof
	s.mu.Unlock()
	switch {
	case !proved:
		return s.refusePage(p, d.ID, tenant, refused(CodeNotAttached, "send the challenge on the tenant's attach subject (again)"))
	case take == nil || int(p.underWay.Load()) >= s.cfg.MaxPages:
		return s.refusePage(p, d.ID, tenant, refused(CodePages, "as many pages are under way by this socket as may be; send the descriptor over NATS"))
	}
	p.underWay.Add(1)
	id := d.ID
	take(tenant, d.Headers.nats(), func(reply *nats.Msg) error {
		status := reply.Header.Get(transport.HeaderStatus)
		if status == transport.StatusOK && len(reply.Data) > 0 {
			return nats.ErrMaxPayload // it does not fit its room
		}
		p.underWay.Add(-1) // before the sender hears of it, and sends the next
		if !p.say(answer{ID: id, Headers: headersOf(reply.Header), Body: string(reply.Data)}) {
			return nats.ErrConnectionClosed
		}
		return nil
	})
	return true
}

// refusePage answers and counts a page that the plane never saw.
func (s *Server) refusePage(p *sender, id uint64, tenant string, e *transport.Error) bool {
	s.metrics.count(tenant, e.Code())
	return p.say(answer{ID: id, Body: e.Error(), Headers: headers{
		transport.HeaderStatus: transport.StatusError, transport.HeaderCode: e.Code(), transport.HeaderRetryable: "false",
	}})
}
