package proxybench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// turns are taken by all paths, so that what else the machine does slows all of them alike.
const turns = 6

// lane is a path with its connections.
type lane struct {
	path
	conns []*conn
	times []time.Duration // of all turns
	rates []float64       // of each turn, requests per second
	cpu   time.Duration

	broken int // answers
}

// lanes opens n connections on each path, each of which has answered once, so that what is behind it is open, too.
func (b *bench) lanes(ctx context.Context, n int, request []byte) ([]*lane, func(), error) {
	all := make([]*lane, 0, len(b.paths))
	closed := func() {
		for _, l := range all {
			for _, c := range l.conns {
				_ = c.Close()
			}
		}
	}
	for _, p := range b.paths {
		l := &lane{path: p, conns: make([]*conn, n)}
		for i := range l.conns {
			c, err := connect(ctx, p.addr)
			if err != nil {
				closed()
				return nil, nil, fmt.Errorf("%s: %w", p.name, err)
			}
			l.conns[i] = c
		}
		all = append(all, l)
		if err := l.each(func(c *conn) error { _, err := c.post(request); return err }); err != nil {
			closed()
			return nil, nil, err
		}
	}
	return all, closed, nil
}

// each does something with every connection at once.
func (l *lane) each(do func(c *conn) error) error {
	faults := make([]error, len(l.conns))
	var group sync.WaitGroup
	for i, c := range l.conns {
		group.Go(func() { faults[i] = do(c) })
	}
	group.Wait()
	for _, err := range faults {
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	return nil
}

// closedLoop sends the next request on each connection when the last one was answered, for d. The connections begin one after
// the other within the time that an answer takes: answers that all take the same time would keep them in step for ever.
func (l *lane) closedLoop(ctx context.Context, request []byte, think, d time.Duration) error {
	var mu sync.Mutex
	var next atomic.Int64
	rate := 0.0
	used := usageOf(l.pid)
	err := l.each(func(c *conn) error {
		var times []time.Duration
		time.Sleep(think * time.Duration(next.Add(1)-1) / time.Duration(len(l.conns)))
		began := time.Now()
		last := began
		for last.Sub(began) < d && ctx.Err() == nil {
			if _, err := c.post(request); err != nil {
				return err
			}
			now := time.Now()
			times = append(times, now.Sub(last))
			last = now
		}
		mu.Lock()
		defer mu.Unlock()
		rate += float64(len(times)) / last.Sub(began).Seconds()
		l.times = append(l.times, times...)
		return nil
	})
	l.rates = append(l.rates, rate)
	if l.pid != 0 {
		l.cpu += usageOf(l.pid).cpu - used.cpu
	}
	return errors.Join(err, ctx.Err())
}

// openLoop sends rate requests per second, whether those before were answered or not, as long as a connection is free. A
// request's time begins when it was due, so that a path that falls behind shows it.
func (l *lane) openLoop(ctx context.Context, request []byte, rate float64, d time.Duration) error {
	due := make(chan time.Time, int(rate*d.Seconds())+1)
	go func() {
		defer close(due)
		runtime.LockOSThread() // which sleeps by itself: never unlocked, so that it ends with the goroutine
		began := time.Now()
		for i := 0; ; i++ {
			at := time.Duration(float64(i) / rate * float64(time.Second))
			if at >= d || ctx.Err() != nil {
				return
			}
			if wait := at - time.Since(began); wait > 0 {
				pause(wait)
			}
			due <- time.Now()
		}
	}()
	var mu sync.Mutex
	used := usageOf(l.pid)
	err := l.each(func(c *conn) error {
		var times []time.Duration
		for at := range due {
			if _, err := c.post(request); err != nil {
				return err
			}
			times = append(times, time.Since(at))
		}
		mu.Lock()
		defer mu.Unlock()
		l.times = append(l.times, times...)
		return nil
	})
	if err != nil {
		for range due { // the sender ends
		}
	}
	if l.pid != 0 {
		l.cpu += usageOf(l.pid).cpu - used.cpu
	}
	return errors.Join(err, ctx.Err())
}

// row sums a lane's turns up, beside those of the direct path.
func (l *lane) row(measure string, think time.Duration, direct *lane) Row {
	r := Row{
		Measure: measure, Path: l.name, Connections: len(l.conns), Think: think, Requests: len(l.times), Broken: l.broken,
		P50: median(l.times), P99: percentile(l.times, 99),
	}
	if len(l.times) > 0 {
		r.CPU = l.cpu / time.Duration(len(l.times))
	}
	if len(l.rates) > 0 {
		ratios := make([]float64, len(l.rates))
		for i := range ratios {
			ratios[i] = l.rates[i] / direct.rates[i]
			r.Rate += l.rates[i] / float64(len(l.rates))
		}
		r.Ratio = median(ratios)
	}
	r.AddedP50, r.AddedP99 = r.P50-median(direct.times), r.P99-percentile(direct.times, 99)
	return r
}

// throughput measures how many requests go through, for each time that the engine takes and each number of connections.
func (b *bench) throughput(ctx context.Context) error {
	for _, think := range b.o.Think {
		request := b.request(false, thinking(think))
		for _, n := range b.o.Connections {
			err := b.inTurns(ctx, n, request, Throughput, think, func(l *lane) error { return l.closedLoop(ctx, request, think, max(b.o.Time/turns, 4*think)) })
			if err != nil {
				return fmt.Errorf("throughput at %d connections: %w", n, err)
			}
		}
	}
	return nil
}

func (b *bench) inTurns(ctx context.Context, n int, request []byte, measure string, think time.Duration, turn func(l *lane) error) error {
	all, closed, err := b.lanes(ctx, n, request)
	if err != nil {
		return err
	}
	defer closed()
	for range turns {
		for _, l := range all {
			if err := turn(l); err != nil {
				return err
			}
		}
	}
	for _, l := range all {
		b.report(l.row(measure, think, all[0]))
	}
	return nil
}

// halfLoad measures what a path adds when semproxy, client and engine, which share the machine, have half as much to do as
// they can.
func (b *bench) halfLoad(ctx context.Context) error {
	n := b.o.Connections[0]
	request := b.request(false)
	all, closed, err := b.lanes(ctx, n, request)
	if err != nil {
		return err
	}
	most := all[1]
	err = most.closedLoop(ctx, request, 0, max(b.o.Time/turns, 100*time.Millisecond))
	closed()
	if err != nil {
		return err
	}
	rate := most.rates[0] / 2
	return b.inTurns(ctx, n, request, HalfLoad, 0, func(l *lane) error {
		err := l.openLoop(ctx, request, rate, b.o.Time/turns)
		l.rates = append(l.rates, rate)
		return err
	})
}
