package transport

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry/semconv"
)

// answerOK sends the handler's reply. Where NATS would not carry it, it goes without its body if that may be spared, else it
// is reply.too_large. It does nothing if the request
// was answered before.
func (s *Server) answerOK(ctx context.Context, r *request, reply Reply) {
	if r.job != nil {
		s.finish(ctx, r, reply, nil)
		return
	}
	// Before anything is written: the sender of a page that was answered may use its shared memory again.
	if !r.answered.CompareAndSwap(false, true) {
		return
	}
	msg := nats.NewMsg(r.msg.Reply)
	for k, v := range reply.Header {
		if !reservedHeader(k) {
			msg.Header[k] = []string{v}
		}
	}
	msg.Header.Set(HeaderStatus, StatusOK)
	msg.Data = reply.Body
	if r.block != nil {
		if descriptor, ok := r.block.Write(reply.Body); ok {
			msg.Header.Set(HeaderMemory, descriptor)
			msg.Data = nil
		}
	}
	err := s.send(ctx, r, msg, nil)
	if errors.Is(err, nats.ErrMaxPayload) && reply.Spare {
		msg.Data = nil
		err = s.send(ctx, r, msg, nil)
	}
	if errors.Is(err, nats.ErrMaxPayload) && r.answer == nil && s.roomier(ctx, msg.Size()) {
		err = s.send(ctx, r, msg, nil)
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		s.cfg.Logger.WarnContext(ctx, "reply is larger than the NATS server's max_payload",
			"tenant", r.tenant, "op", string(r.op), "bytes", len(reply.Body))
		_ = s.send(ctx, r, errorMsg(r, errReplyTooLarge, 0), errReplyTooLarge)
	}
}

// answerError sends e unless the request was answered before.
func (s *Server) answerError(ctx context.Context, r *request, e *Error) {
	if r.job != nil {
		s.finish(ctx, r, Reply{}, e)
		return
	}
	if r.answered.CompareAndSwap(false, true) {
		_ = s.send(ctx, r, errorMsg(r, e, s.admission.retryAfter()), e)
	}
}

// finish tells a job's outcome, once.
func (s *Server) finish(ctx context.Context, r *request, reply Reply, e *Error) {
	if !r.answered.CompareAndSwap(false, true) {
		return
	}
	var after time.Duration
	if e != nil {
		page := trace.SpanFromContext(ctx)
		page.SetStatus(codes.Error, e.code)
		page.SetAttributes(semconv.ErrorCode.String(e.code))
		s.metrics.countError(ctx, r, e.code)
		after = s.admission.retryAfter()
	}
	r.job.Done(ctx, reply, e, after)
	s.metrics.time(ctx, r, semconv.StageTotal, time.Since(r.arrived))
}

// send sends msg as the one reply of an admitted request: counted, with a span, the trace context in its headers.
// The error is ErrMaxPayload or nil; other failures are counted and logged here.
func (s *Server) send(ctx context.Context, r *request, msg *nats.Msg, e *Error) error {
	began := time.Now()
	page := trace.SpanFromContext(ctx)
	_, span := s.tracer.Start(ctx, semconv.SpanReply, trace.WithTimestamp(began),
		trace.WithAttributes(semconv.BytesOut.Int(len(msg.Data))))
	defer span.End()
	s.propagator.Inject(ctx, HeaderCarrier(msg.Header))

	err := s.deliver(r, msg)
	switch {
	case errors.Is(err, nats.ErrMaxPayload) && e == nil:
		span.SetStatus(codes.Error, CodeReplyTooLarge)
		return err
	case err != nil:
		span.SetStatus(codes.Error, "publish")
		s.publishFailed(ctx, r, err)
	}
	if e != nil {
		page.SetStatus(codes.Error, e.code)
		page.SetAttributes(semconv.ErrorCode.String(e.code))
		s.metrics.countError(ctx, r, e.code)
	}
	s.metrics.time(ctx, r, semconv.StageReply, time.Since(began))
	s.metrics.time(ctx, r, semconv.StageTotal, time.Since(r.arrived))
	return nil
}

// refuseRequest answers a request that was not admitted or lost its place.
func (s *Server) refuseRequest(r *request, e *Error, after time.Duration) {
	defer r.close()
	if r.job != nil {
		s.finish(s.ctx, r, Reply{}, e)
		return
	}
	if !r.answered.CompareAndSwap(false, true) {
		return
	}
	if err := s.deliver(r, errorMsg(r, e, after)); err != nil {
		s.publishFailed(s.ctx, r, err)
	}
	s.metrics.countError(s.ctx, r, e.code)
}

func (s *Server) publishFailed(ctx context.Context, r *request, err error) {
	s.metrics.countDropped(droppedPublish, 1)
	s.cfg.Logger.WarnContext(ctx, "reply not sent", "tenant", r.tenant, "op", string(r.op), "error", err)
}

// errorMsg makes the reply for e; after counts only for a retryable error.
func errorMsg(r *request, e *Error, after time.Duration) *nats.Msg {
	msg := nats.NewMsg(r.msg.Reply)
	retryable := Retryable(e.code)
	msg.Header.Set(HeaderStatus, StatusError)
	msg.Header.Set(HeaderCode, e.code)
	msg.Header.Set(HeaderRetryable, strconv.FormatBool(retryable))
	if retryable {
		ms := max(1, (after+time.Millisecond-1)/time.Millisecond)
		msg.Header.Set(HeaderRetryAfter, strconv.FormatInt(int64(ms), 10))
	}
	msg.Data = []byte(e.text)
	return msg
}

func reservedHeader(key string) bool {
	for _, own := range [...]string{HeaderMemory, HeaderStatus, HeaderCode, HeaderRetryable, HeaderRetryAfter} {
		if strings.EqualFold(key, own) {
			return true
		}
	}
	return false
}
