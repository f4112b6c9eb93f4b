package proxybench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// burst is how many streams a path begins before the next path has its turn.
const burst = 20

// firstByte measures how long the first byte of a stream takes, one request at a time.
func (b *bench) firstByte(ctx context.Context) error {
	request := b.request(true)
	all, closed, err := b.lanes(ctx, 1, request)
	if err != nil {
		return err
	}
	defer closed()
	until := time.Now().Add(b.o.Time * time.Duration(len(all)))
	for time.Now().Before(until) {
		for _, l := range all {
			for range burst {
				began := time.Now()
				first, err := l.conns[0].post(request)
				switch {
				case err == nil && ctx.Err() == nil:
					l.times = append(l.times, first.Sub(began))
				case ctx.Err() != nil || l.name == Direct || l.name == Semproxy:
					return fmt.Errorf("first byte: %s: %w", l.name, errors.Join(err, ctx.Err()))
				default: // Caddy 2.10 cuts a short stream now and then
					l.broken++
					_ = l.conns[0].Close()
					if l.conns[0], err = connect(ctx, l.addr); err != nil {
						return fmt.Errorf("first byte: %s: %w", l.name, err)
					}
				}
			}
		}
	}
	for _, l := range all {
		b.report(l.row(FirstByte, 0, all[0]))
	}
	return nil
}

// idle measures the memory of streams that have begun and wait, path by path.
func (b *bench) idle(ctx context.Context) error {
	if b.o.Streams == 0 {
		return nil
	}
	for _, p := range b.paths {
		if p.pid == 0 {
			continue
		}
		row, err := b.idleOn(ctx, p)
		if err != nil {
			return fmt.Errorf("idle streams: %s: %w", p.name, err)
		}
		b.report(row)
	}
	return nil
}

func (b *bench) idleOn(ctx context.Context, p path) (Row, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // closes all connections
	request := b.request(true, headerHold+": 1")
	row := Row{Measure: IdleStreams, Path: p.name, Streams: b.o.Streams, Before: usageOf(p.pid).memory}
	work := make(chan struct{}, b.o.Streams)
	for range b.o.Streams {
		work <- struct{}{}
	}
	close(work)
	var group sync.WaitGroup
	faults := make([]error, 32)
	for w := range faults { // so many begin at one time
		group.Go(func() {
			for range work {
				if faults[w] = errors.Join(begin(ctx, p.addr, request), ctx.Err()); faults[w] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(faults...); err != nil {
		return row, err
	}
	row.Open = usageOf(p.pid).memory
	select {
	case <-ctx.Done():
		return row, ctx.Err()
	case <-time.After(b.o.Hold):
	}
	row.After = usageOf(p.pid).memory
	row.PerStream = (max(row.Open, row.After) - row.Before) / int64(row.Streams)
	return row, nil
}

// begin opens a connection and reads a stream's first event; the connection stays until ctx ends.
func begin(ctx context.Context, addr string, request []byte) error {
	c, err := connect(ctx, addr)
	if err != nil {
		return err
	}
	response, err := c.begin(request) //nolint:bodyclose // the stream is to stay
	if err != nil {
		return err
	}
	// The reader is not kept: ten thousand would be the client's memory, not the proxy's.
	line, err := bufio.NewReaderSize(response.Body, 16).ReadSlice('\n')
	if len(line) == 0 {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	return nil
}
