package jobs

import (
	"context"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/semproxy/semproxy/transport"
)

// A job whose page kills whoever works on it would kill one sidecar after another. So a worker notes in the stream of
// outcomes that it begins, and who gives a job back notes that as well. A job that comes again, and whose last note
// says that another sidecar works on it, was left by one that ended. A note of one's own is no death: when a NATS
// server is lost, a job comes again while it is worked on. From the first death on it is tried apart, where there is a
// Trial, and a trial that ends in a death too is the second and last one; without a Trial the second death is a
// sidecar's.

// Values of HeaderState.
const (
	stateWorking = "working"
	stateBack    = "back"
)

const (
	deathsAlone = 2 // without a trial, a job that sidecars ended at so often is poison
	deathsTried = 4 // and one whose trials went well: that its sidecars ended is then rather their fault
)

var errPoison = transport.NewError(CodePoison, "whoever works on this page ends: it was given up after its second death")

// read notes that the work begins, and fetches the page. A worker calls it.
func (j *job) read(ctx context.Context) ([]byte, error) {
	if j.tries > 1 {
		if err := j.lookBack(ctx); err != nil {
			return nil, err
		}
	}
	trial := j.runner.cfg.Trial
	if j.deaths >= deathsTried || (trial == nil && j.deaths >= deathsAlone) {
		return nil, errPoison
	}
	noted, err := j.runner.js.PublishMsgAsync(j.note(stateWorking))
	if err != nil {
		return nil, errNotNoted
	}
	page, err := j.fetch(ctx)
	if err != nil {
		return nil, err
	}
	if err := j.await(ctx, noted); err != nil {
		return nil, err
	}
	j.noted.Store(true)
	if j.deaths > 0 && trial != nil && trial(ctx, j.tenant, page) {
		return nil, errPoison
	}
	return page, nil
}

var errNotNoted = transport.NewError(transport.CodeBusy, "that the job is worked on could not be noted now")

// await waits until the note is kept.
func (j *job) await(ctx context.Context, noted jetstream.PubAckFuture) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var err error
	select {
	case <-noted.Ok():
		return nil
	case err = <-noted.Err():
	case <-ctx.Done():
		return errNotNoted
	}
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		if j.runner.keep(ctx, j.tenant, j.note(stateWorking)) == nil {
			return nil
		}
	}
	return errNotNoted
}

func (j *job) note(state string) *nats.Msg {
	return &nats.Msg{Subject: workSubject(j.tenant, strconv.FormatUint(j.seq, 10)), Header: nats.Header{
		HeaderJob: {j.id}, HeaderState: {state}, HeaderDeaths: {strconv.Itoa(j.deaths)}, HeaderWorker: {j.runner.name},
	}}
}

// lookBack counts the deaths at a job that comes again. A job that nobody has noted anything of waited in the queue of
// whoever had it.
func (j *job) lookBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	stream, err := j.runner.js.Stream(ctx, results+j.tenant)
	var last *jetstream.RawStreamMsg
	if err == nil {
		last, err = stream.GetLastMsgForSubject(ctx, workSubject(j.tenant, strconv.FormatUint(j.seq, 10)))
	}
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return nil
	case err != nil:
		return errNotNoted
	}
	j.deaths, _ = strconv.Atoi(last.Header.Get(HeaderDeaths))
	if last.Header.Get(HeaderState) == stateWorking && last.Header.Get(HeaderWorker) != j.runner.name {
		j.deaths++
		j.runner.cfg.Logger.Warn("job_left_by_a_death", "tenant", j.tenant, "job", j.id, "deaths", j.deaths)
	}
	return nil
}

// giveBack notes that the job was left alive.
func (j *job) giveBack(ctx context.Context) {
	if !j.noted.Load() {
		return
	}
	if err := j.runner.keep(ctx, j.tenant, j.note(stateBack)); err != nil {
		j.runner.cfg.Logger.Warn("job_not_noted", "tenant", j.tenant, "job", j.id, "error", err)
	}
}
