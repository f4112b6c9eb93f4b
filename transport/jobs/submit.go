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
	digest := digestOf(page)
	msg := &nats.Msg{Subject: jobSubject(tenant), Data: page, Header: nats.Header{HeaderJob: {id}, HeaderDigest: {digest}, jetstream.MsgIDHeader: {id}}}
	for _, name := range []string{"traceparent", "tracestate"} {
		if v := transport.HeaderCarrier(header).Get(name); v != "" {
			msg.Header.Set(name, v)
		}
	}
	kept, err := r.publish(ctx, msg, jetstream.WithExpectStream(waiting+tenant))
	if err != nil {
		return transport.Reply{}, r.submitError(tenant, err)
	}
	if kept.Duplicate {
		if other := r.digestOf(ctx, tenant, id, kept.Sequence); other != "" && other != digest {
			return transport.Reply{}, errTaken
		}
	}
	return transport.Reply{Header: map[string]string{HeaderJob: id, HeaderAgain: strconv.FormatBool(kept.Duplicate)}}, nil
}

var errTaken = transport.NewError(CodeTaken, "another page was sent with this id a moment ago: give each page an id of its own")

// digestOf is that of the page which was kept under an id; empty when it is no longer known.
func (r *Runner) digestOf(ctx context.Context, tenant, id string, seq uint64) string {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if stream, err := r.js.Stream(ctx, waiting+tenant); err == nil {
		if raw, err := stream.GetMsg(ctx, seq); err == nil {
			return raw.Header.Get(HeaderDigest)
		}
	}
	if stream, err := r.js.Stream(ctx, results+tenant); err == nil {
		if told, err := stream.GetLastMsgForSubject(ctx, DoneSubject(tenant, id)); err == nil {
			return told.Header.Get(HeaderDigest)
		}
	}
	return ""
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
	if r.hasNoRoom(tenant) {
		return transport.NewError(CodeNoRoom, "there is no room for jobs of this tenant (JetStream's storage is smaller than what the tenants' jobs reserve): send pages, or ask the operator")
	}
	r.cfg.Refused(kindOf(err), err)
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
