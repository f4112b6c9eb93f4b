package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/semproxy/semproxy/telemetry/semconv"
	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/jobs"
)

// Names that only the client uses.
const (
	scope        = "github.com/semproxy/semproxy/transport/client"
	attrAttempts = "semproxy.attempts"
	eventRetry   = "retry"
)

// request sends body, with header beside the trace context, until it is answered for good, the attempts are used up or ctx ends.
func (c *Client) request(ctx context.Context, op transport.Op, header nats.Header, body []byte) (*Result, error) {
	began := time.Now()
	subject, err := transport.Subject(c.opts.Tenant, op)
	if err != nil {
		return nil, err
	}
	ctx, span := c.tracer.Start(ctx, semconv.SpanSend, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		semconv.MessagingSystem.String(semconv.SystemNATS),
		semconv.MessagingDestination.String(subject),
		semconv.MessagingOperation.String("send"),
		semconv.MessagingBodySize.Int(len(body)),
		semconv.Tenant.String(c.opts.Tenant)))
	defer span.End()

	if header == nil {
		header = nats.Header{}
	}
	msg := &nats.Msg{Subject: subject, Header: header, Data: body}
	c.propagator.Inject(ctx, transport.HeaderCarrier(msg.Header))

	reply, attempts, err := c.attempts(ctx, span, op, msg)
	span.SetAttributes(attribute.Int(attrAttempts, attempts))
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			span.SetAttributes(semconv.ErrorCode.String(e.Code))
		}
		span.SetStatus(codes.Error, err.Error())
		return nil, err
	}
	return &Result{
		Body: reply.Data, Header: reply.Header, Attempts: attempts, Duration: time.Since(began),
		Shared: reply.shared,
	}, nil
}

// answer is a reply that is a success.
type answer struct {
	*nats.Msg
	shared bool // the page went through shared memory
}

func (c *Client) attempts(ctx context.Context, span trace.Span, op transport.Op, msg *nats.Msg) (reply answer, attempts int, err error) {
	for {
		attempts++
		reply, e := c.attempt(ctx, op, msg)
		if e == nil {
			return reply, attempts, nil
		}
		e.Attempts = attempts
		if ctx.Err() != nil {
			return answer{}, attempts, stopped(ctx, e)
		}
		if !e.Retryable || attempts >= c.opts.MaxAttempts || e.Code == jobs.CodePending {
			return answer{}, attempts, e
		}
		span.AddEvent(eventRetry, trace.WithAttributes(
			semconv.ErrorCode.String(e.Code), attribute.Int(attrAttempts, attempts)))
		pause := time.NewTimer(c.opts.Backoff.pause(attempts, e.after))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return answer{}, attempts, stopped(ctx, e)
		}
	}
}

// stopped is the error of a caller whose context ended; it wraps the context's cause and the last answer.
func stopped(ctx context.Context, last *Error) error {
	return fmt.Errorf("stopped waiting for semproxy: %w; last: %w", context.Cause(ctx), last)
}

// errNoReply ends an attempt whose time is up.
var errNoReply = errors.New("no reply in time")

// attempt sends msg once, waiting for the connection if it is down.
func (c *Client) attempt(ctx context.Context, op transport.Op, msg *nats.Msg) (answer, *Error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.Timeout, errNoReply)
	defer cancel()
	if err := c.link.waitUp(ctx); err != nil {
		return answer{}, sendError(err)
	}
	if c.memory != nil && op == transport.OpCompress {
		if reply, e, done := c.memory.attempt(ctx, msg); done {
			return answer{reply, true}, e
		}
		if int64(len(msg.Data)) > c.nc.MaxPayload() {
			return answer{}, &Error{Code: CodeUnreachable, Retryable: true,
				Message: "the page fits shared memory only, which is not available now"}
		}
	}
	reply, e := c.send(ctx, msg)
	return answer{Msg: reply}, e
}

// send sends msg over NATS and waits for its reply.
func (c *Client) send(ctx context.Context, msg *nats.Msg) (*nats.Msg, *Error) {
	// Known only now: each server tells its own limit when the connection is made.
	if int64(len(msg.Data)) > c.nc.MaxPayload() {
		return nil, tooLarge(nil)
	}
	ctx, leave := c.link.enter(ctx, msg.Subject)
	defer leave()
	reply, err := c.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, sendError(err)
	}
	if e := replyError(reply); e != nil {
		return nil, e
	}
	return reply, nil
}

// pause is how long to wait after the n-th attempt (1, 2, ...).
func (b Backoff) pause(n int, asked time.Duration) time.Duration {
	d := b.Max
	if shift := n - 1; shift < 32 && b.First<<shift > 0 {
		d = min(d, b.First<<shift)
	}
	d = max(d, asked)
	return d + rand.N(d/2+1)
}
