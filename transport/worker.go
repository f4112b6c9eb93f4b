package transport

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

func (s *Server) work() {
	for {
		r := s.admission.next()
		if r == nil {
			return
		}
		began := time.Now()
		s.serve(r, began)
		s.admission.done(r, time.Since(began))
	}
}

// serve handles one request within its deadline and answers it. A handler that outlives the deadline (or the drain) does
// not delay the reply: the sender is answered at that moment, and what the handler returns later is discarded.
func (s *Server) serve(r *request, picked time.Time) {
	ctx := s.propagator.Extract(s.ctx, HeaderCarrier(r.msg.Header))
	ctx, span := s.tracer.Start(ctx, semconv.SpanPage,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(r.arrived), trace.WithAttributes(
			semconv.MessagingSystem.String(semconv.SystemNATS),
			semconv.MessagingDestination.String(r.msg.Subject),
			semconv.MessagingTemplate.String(subjectTemplate),
			semconv.MessagingOperation.String(operation),
			semconv.MessagingGroup.String(QueueGroup),
			semconv.MessagingBodySize.Int64(r.size),
			semconv.Tenant.String(r.tenant),
			semconv.BytesIn.Int64(r.size)))
	defer span.End()
	_, waited := s.tracer.Start(ctx, semconv.SpanReceive, trace.WithTimestamp(r.arrived))
	waited.End(trace.WithTimestamp(picked))
	s.metrics.time(ctx, r, semconv.StageReceive, picked.Sub(r.arrived))

	ctx, cancel := context.WithDeadline(ctx, r.arrived.Add(s.cfg.RequestTimeout))
	defer cancel()
	early := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(early)
		e, _ := publicError(ctx, ctx.Err())
		s.answerError(ctx, r, e)
	})

	var reply Reply
	err := ctx.Err()
	if err == nil {
		err = r.load(ctx)
	}
	if err == nil {
		reply, err = s.call(ctx, r)
	}
	if !stop() {
		<-early
	}
	if err != nil {
		e, hidden := publicError(ctx, err)
		if hidden {
			s.cfg.Logger.ErrorContext(ctx, "request failed", "tenant", r.tenant, "op", string(r.op), "error", err)
		}
		s.answerError(ctx, r, e)
	} else {
		s.answerOK(ctx, r, reply)
	}
	if reply.Release != nil {
		reply.Release()
	}
	r.close()
}

// call runs the handler and turns a panic into an error.
func (s *Server) call(ctx context.Context, r *request) (reply Reply, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.metrics.panics.Add(ctx, 1)
		s.cfg.Logger.ErrorContext(ctx, "handler panicked",
			"tenant", r.tenant, "op", string(r.op), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		reply, err = Reply{}, errInternal
	}()
	switch r.op {
	case OpGet:
		return s.cfg.Handler.Get(ctx, r.tenant, r.msg.Data)
	case OpAttach:
		if s.cfg.Memory == nil {
			return Reply{}, errNoMemory
		}
		return Reply{}, s.cfg.Memory.Attach(r.tenant, string(r.msg.Data))
	case OpResult:
		if s.cfg.Jobs == nil {
			return Reply{}, errNoJobs
		}
		return s.cfg.Jobs.Result(ctx, r.tenant, string(r.msg.Data))
	case OpJob:
		if s.cfg.Jobs == nil {
			return Reply{}, errNoJobs
		}
		return s.cfg.Jobs.Submit(ctx, r.tenant, r.msg.Header, r.msg.Data)
	case OpStat:
		return s.cfg.Handler.Stat(ctx, r.tenant, r.msg.Data)
	default:
		return s.cfg.Handler.Compress(ctx, r.tenant, r.msg.Data)
	}
}
