package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/transport"
)

// CodeUnreachable is this package's own code: nobody took the request. It is retryable; the other codes are the page
// plane's.
const CodeUnreachable = codes.Unreachable

// Error is an answer that is not a success. One with Retryable set comes back only when the attempts are used up.
type Error struct {
	Code      string // stable, see docs/reference/errors.md
	Message   string // a sentence without secrets
	Retryable bool
	Attempts  int // how often the page was sent

	answered bool          // by a sidecar
	after    time.Duration // how long the server asks to wait
	cause    error
}

// Error returns the code, the sentence, and the number of attempts where there was more than one.
func (e *Error) Error() string {
	if e.Attempts > 1 {
		return fmt.Sprintf("%s: %s (after %d attempts)", e.Code, e.Message, e.Attempts)
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the NATS error behind it, or nil.
func (e *Error) Unwrap() error { return e.cause }

// replyError reads the error of a reply, or returns nil for a success.
func replyError(msg *nats.Msg) *Error {
	header := transport.HeaderCarrier(msg.Header)
	switch header.Get(transport.HeaderStatus) {
	case transport.StatusOK:
		return nil
	case transport.StatusError:
	default:
		return &Error{Code: codes.Internal, Message: "the reply is not one of semproxy's: it has no " + transport.HeaderStatus + " header"}
	}
	e := &Error{Code: header.Get(transport.HeaderCode), Message: string(msg.Data), answered: true}
	e.Retryable = header.Get(transport.HeaderRetryable) == "true"
	if ms, err := strconv.ParseInt(header.Get(transport.HeaderRetryAfter), 10, 32); err == nil && ms > 0 {
		e.after = time.Duration(ms) * time.Millisecond
	}
	return e
}

// sendError names what went wrong before a reply came.
func sendError(err error) *Error {
	e := &Error{Code: CodeUnreachable, Message: "the NATS server is not reachable", Retryable: true, cause: err}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		e.Message = "no semproxy listens on this NATS server"
	case errors.Is(err, errNoReply), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Code, e.Message = transport.CodeDeadline, "no reply came in time"
	case errors.Is(err, nats.ErrMaxPayload):
		return tooLarge(err)
	case errors.Is(err, nats.ErrPermissionViolation):
		return &Error{Code: codes.PolicyDenied, Message: "the NATS server does not let this user send as this tenant", cause: err}
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		e.Message, e.Retryable = "the connection was closed by this program", false
	case errors.Is(err, nats.ErrHeadersNotSupported), errors.Is(err, nats.ErrInvalidConnection), errors.Is(err, nats.ErrBadSubject):
		e.Message, e.Retryable = err.Error(), false
	}
	return e
}

func tooLarge(cause error) *Error {
	return &Error{Code: transport.CodePageTooLarge, cause: cause,
		Message: "the page does not fit one NATS message; send fewer layers or fewer tokens per page"}
}
