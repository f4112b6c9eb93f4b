package transport

import (
	"context"
	"errors"
	"strings"
	"unicode"

	"github.com/semproxy/semproxy/codes"
)

// Codes that the page plane itself gives. Handlers add their own (page.*, policy.denied, gone, ...).
const (
	CodeRate          = codes.LimitRate         // the tenant's pages per second; retryable
	CodeBytes         = codes.LimitBytes        // the tenant's bytes in flight; retryable
	CodeBusy          = codes.Busy              // the queue or the bytes of all tenants; retryable
	CodeDraining      = codes.Draining          // this sidecar is stopping; retryable
	CodeDeadline      = codes.Deadline          // not finished in time; retryable
	CodeStore         = codes.StoreAway         // retryable; given by handlers
	CodeInternal      = codes.Internal          // a fault of the server; final
	CodeSubject       = codes.SubjectInvalid    // tenant or operation not valid; final
	CodePageTooLarge  = codes.PageTooLarge      // more bytes than may ever be in flight; final
	CodeReplyTooLarge = codes.ReplyTooLarge     // the reply does not fit a NATS message; final
	CodeNoMemory      = codes.MemoryUnsupported // this sidecar takes no pages in shared memory; send them inline
	CodeNoJobs        = codes.JobUnsupported    // this sidecar takes no jobs; final
	codePending       = codes.JobPending        // given by transport/jobs: no outcome yet; retryable
)

// Retryable reports whether the same bytes may succeed when sent again after a while.
func Retryable(code string) bool { return codes.Retryable(code) }

// Error is an error of the page plane: a stable code and a sentence that is safe to show to a tenant.
type Error struct {
	code string
	text string
}

// NewError makes an error that a tenant may see.
func NewError(code, text string) *Error { return &Error{code: code, text: text} }

// Error returns the sentence.
func (e *Error) Error() string { return e.text }

// Code returns the stable code.
func (e *Error) Code() string { return e.code }

// coded is what an error must have for a tenant to see its code and text.
type coded interface {
	error
	Code() string
}

const (
	internalText = "the server failed to handle the request; its log has the details"
	deadlineText = "the request did not finish in time; send it again"
	drainingText = "this sidecar is stopping; send the request again"
)

// publicError turns what a handler returned into what a tenant may see. The rule: the nearest error of the chain with a
// Code method gives both the code and the sentence (its own text, not that of the errors that wrap it); a cancelled or
// expired context gives draining or deadline; everything else is internal with a general sentence, and hidden is true.
func publicError(ctx context.Context, err error) (e *Error, hidden bool) {
	var c coded
	if errors.As(err, &c) && validCode(c.Code()) {
		return &Error{code: c.Code(), text: sentence(c.Error())}, false
	}
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		return errDraining, false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errDeadline, false
	}
	return errInternal, true
}

var (
	errDraining = &Error{code: CodeDraining, text: drainingText}
	errDeadline = &Error{code: CodeDeadline, text: deadlineText}
	errInternal = &Error{code: CodeInternal, text: internalText}
	errRate     = &Error{code: CodeRate, text: "this tenant sends more messages per second than its limit; wait and send again"}
	errBytes    = &Error{code: CodeBytes, text: "this tenant has as many bytes in flight as its limit; wait for replies and send again"}
	errBusy     = &Error{code: CodeBusy, text: "this sidecar has no room for more pages now; wait and send again"}

	errPageTooLarge = &Error{code: CodePageTooLarge,
		text: "the page has more bytes than may be in flight at all; send fewer layers or fewer tokens per page"}
	errNoMemory = &Error{code: CodeNoMemory, text: "this sidecar takes no pages in shared memory; send the page in the message"}
	errNoJobs   = &Error{code: CodeNoJobs, text: "this sidecar keeps no jobs"}

	errReplyTooLarge = &Error{code: CodeReplyTooLarge,
		text: "the reply does not fit one NATS message; send fewer layers or fewer tokens per page"}
)

// validCode keeps a code to what is safe as a header value and a metric attribute.
func validCode(code string) bool {
	if code == "" || len(code) > 64 {
		return false
	}
	for i := range len(code) {
		c := code[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

const maxSentence = 512

// sentence makes text one printable line of bounded length.
func sentence(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxSentence {
		text = strings.ToValidUTF8(text[:maxSentence], "") + "..."
	}
	return text
}
