package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// errStoreFailed is JetStream's number for a message that a stream did not keep, be it over its limit or a fault; its
// client has no name for it.
const errStoreFailed jetstream.ErrorCode = 10077

// Submit implements transport.Jobs. The job's id is the sender's Nats-Msg-Id, else a digest of the page, so that a page
// that is sent again because the reply was lost is kept once. JetStream remembers ids for two minutes.
func (r *Runner) Submit(ctx context.Context, tenant string, header nats.Header, page []byte) (transport.Reply, error) {
	id := header.Get(jetstream.MsgIDHeader)
	if id == "" {
		sum := sha256.Sum256(page)
		id = hex.EncodeToString(sum[:16])
	}
	if !ValidID(id) {
		return transport.Reply{}, errBadID
	}
	msg := &nats.Msg{Subject: jobSubject(tenant), Data: page, Header: nats.Header{HeaderJob: {id}, jetstream.MsgIDHeader: {id}}}
	for _, name := range []string{"traceparent", "tracestate"} {
		if v := transport.HeaderCarrier(header).Get(name); v != "" {
			msg.Header.Set(name, v)
		}
	}
	kept, err := r.publish(ctx, msg, jetstream.WithExpectStream(waiting+tenant))
	if err != nil {
		return transport.Reply{}, r.submitError(tenant, err)
	}
	return transport.Reply{Header: map[string]string{HeaderJob: id, HeaderAgain: strconv.FormatBool(kept.Duplicate)}}, nil
}

func (r *Runner) submitError(tenant string, err error) error {
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == errStoreFailed && strings.Contains(api.Description, "maximum"):
		return transport.NewError(CodeFull, "as many bytes of jobs wait as this tenant may have; wait and send again")
	case errors.Is(err, nats.ErrMaxPayload):
		return transport.NewError(transport.CodePageTooLarge, "the page does not fit a stream of jobs; send fewer layers or fewer tokens per page")
	case errors.Is(err, jetstream.ErrNoStreamResponse) && r.unknown(tenant):
		return transport.NewError(transport.CodeNoJobs, "the policy names no such tenant, and only those that it names may have jobs")
	}
	r.cfg.Logger.Warn("job_not_kept", "tenant", tenant, "error", err)
	return transport.NewError(transport.CodeStore, "the job could not be kept now; send it again")
}

// unknown reports that tenant is none that may have jobs.
func (r *Runner) unknown(tenant string) bool {
	for _, t := range r.cfg.Tenants() {
		if t.Name == tenant {
			return false
		}
	}
	return true
}
