package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/semproxy/semproxy/transport"
	"github.com/semproxy/semproxy/transport/jobs"
)

// Submitted is a page that is kept until its cores are stored.
type Submitted struct {
	ID        string // for [Client.Wait]
	Duplicate bool   // it was kept before
	Attempts  int
}

// Submit hands over one page and returns when it is kept: from then on the sender may forget it. id names the job and
// makes a second Submit within two minutes harmless; "" takes a digest of the page.
func (c *Client) Submit(ctx context.Context, id string, page []byte) (*Submitted, error) {
	header := nats.Header{}
	if id != "" {
		if !jobs.ValidID(id) {
			return nil, &Error{Code: jobs.CodeBadID, Message: "a job's id is 1 to 64 letters, digits, underscores or hyphens"}
		}
		header.Set(nats.MsgIdHdr, id)
	}
	r, err := c.request(ctx, transport.OpJob, header, page)
	if err != nil {
		return nil, err
	}
	return &Submitted{ID: r.Header.Get(jobs.HeaderJob), Duplicate: r.Header.Get(jobs.HeaderAgain) == "true", Attempts: r.Attempts}, nil
}

// poll is how often a job's outcome is asked for, beside listening for it: what was told while the connection was down
// is heard that way.
const poll = time.Second

// headerObject is in the outcome of a page whose cores were stored; it is empty for one that the policy leaves as it is.
const headerObject = "Semproxy-Object"

// Wait waits for the outcome of a job, which may have been submitted by another process, and returns the cores. Body is
// nil where the policy leaves the page as it is: nothing was stored, its sender has it. A job that is a dead letter is an
// [*Error] with its code. ctx bounds the wait, and an id that nobody knows is waited for as long.
func (c *Client) Wait(ctx context.Context, id string) (*Result, error) {
	if !jobs.ValidID(id) {
		return nil, &Error{Code: jobs.CodeBadID, Message: "a job's id is 1 to 64 letters, digits, underscores or hyphens"}
	}
	began := time.Now()
	told := make(chan *nats.Msg, 1)
	// Where the NATS server does not let this user listen, asking does.
	sub, err := c.nc.Subscribe(jobs.DoneSubject(c.opts.Tenant, id), func(msg *nats.Msg) {
		select {
		case told <- msg:
		default:
		}
	})
	if err != nil {
		return nil, sendError(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		r, err := c.request(ctx, transport.OpResult, nil, []byte(id))
		if err == nil {
			return c.collect(ctx, r, began)
		}
		var e *Error
		if ctx.Err() != nil || !errors.As(err, &e) || !e.Retryable {
			return nil, err
		}
		select {
		case msg := <-told: // by a sidecar: senders may not publish there
			if code := msg.Header.Get(transport.HeaderCode); code != "" {
				return nil, &Error{Code: code, Message: string(msg.Data), Attempts: 1}
			}
			return c.collect(ctx, &Result{Header: msg.Header, Attempts: 1}, began)
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("stopped waiting for job %s: %w", id, context.Cause(ctx))
		}
	}
}

// collect fetches what an outcome names.
func (c *Client) collect(ctx context.Context, outcome *Result, began time.Time) (*Result, error) {
	object := outcome.Header.Get(headerObject)
	if object != "" {
		stored, err := c.Get(ctx, object)
		if err != nil {
			return nil, err
		}
		outcome.Body = stored.Body
	}
	outcome.Duration = time.Since(began)
	return outcome, nil
}
