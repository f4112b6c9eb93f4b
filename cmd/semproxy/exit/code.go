// Package exit says with which code a command ends: the same codes, by kind of error, in all commands.
package exit

import (
	"context"
	"errors"
	"net"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/transport/client"
)

// Exit codes, by kind, the same for all commands.
const (
	Failed      = 1 // a limit was not held, something went wrong
	Usage       = 2 // the command line is wrong
	Refused     = 3 // a file, a policy or a page is wrong: the same again fails again
	Unavailable = 4 // what was asked does not answer: the same again may work
)

// FailedError is a command's verdict: it has printed why.
type FailedError struct{ Text string }

func (e FailedError) Error() string { return e.Text }

// RefusedError is about what a person wrote, which has been printed.
type RefusedError struct{ Text string }

func (e RefusedError) Error() string { return e.Text }

// UsageError is a mistake in the command line.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

func (e UsageError) Unwrap() error { return e.Err }

// Code is the kind of an error.
func Code(err error) int {
	var usage UsageError
	var refused RefusedError
	var mine *client.Error
	var dial *net.OpError
	code := ""
	var coded interface{ Code() string }
	if errors.As(err, &coded) {
		code = coded.Code()
	}
	switch {
	case strings.Contains(err.Error(), "prove."): // a proof that fails has failed, whatever it was
		return Failed
	case errors.As(err, &usage), isUsage(err.Error()):
		return Usage
	case errors.As(err, &refused), len(strict.Problems(err)) > 0, strings.HasPrefix(code, "policy."), strings.HasPrefix(code, "page."), strings.HasPrefix(code, "eval."):
		return Refused
	case errors.As(err, &mine):
		if mine.Retryable {
			return Unavailable
		}
		return Refused
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, context.DeadlineExceeded), errors.As(err, &dial) && dial.Op == "dial":
		return Unavailable
	}
	return Failed
}

// isUsage knows cobra's complaints, which have no type.
func isUsage(text string) bool {
	for _, p := range []string{"unknown command", "unknown flag", "unknown shorthand", "required flag(s)", "accepts ", "requires at least", "if any flags in the group", "flag needs an argument", "invalid argument"} {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}
