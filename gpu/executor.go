package gpu

import (
	"errors"
	"runtime"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// Back-off of the attempts to get a lost device back.
const (
	probeFirst = time.Second
	probeMost  = time.Minute
)

// executor is the goroutine that owns a device. It is locked to a thread, since a context belongs to one, and takes batches
// through three stations: copied in and clustered, merged and copied out, handed over. While one batch is at a station the
// next is at the one before, so that copies and kernels overlap.
type executor struct {
	q      *queue
	driver *cuda.Driver
	info   cuda.Info
	cfg    *Options

	device    *device
	clustered []*slot // at the first station
	merged    []*slot // at the second
	backoff   time.Duration
}

// run owns the device until the queue is closed. opened is told whether the device could be opened.
func (e *executor) run(opened chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := e.open()
	opened <- err
	if err != nil {
		return
	}
	for e.step() {
	}
	if e.device != nil {
		e.q.drain(e.device)
		_ = e.device.close() // the process is done with it
	}
}

func (e *executor) open() (err error) {
	e.device, err = openDevice(e.driver, e.info, e.cfg.Memory)
	if err == nil {
		e.backoff = 0
		e.q.open(e.device)
	}
	return err
}

// step moves every batch one station on, the newest first, so that the device has work while this thread waits for the oldest.
// It reports false when there is nothing more to do.
func (e *executor) step() bool {
	if e.device == nil {
		return e.probe()
	}
	idle := len(e.clustered) == 0 && len(e.merged) == 0
	s, closed := e.q.next(idle)
	if s == nil && idle {
		return !closed
	}
	if s != nil {
		s.filling.Wait() // callers that still copy: a copy is short
		if e.failed(e.device.stage1(s), s) {
			return true
		}
		e.clustered = append(e.clustered, s)
	}
	if n := len(e.merged); n > 0 && (s == nil || n > 1 || len(e.clustered) > 1) {
		s := e.merged[0]
		e.merged = e.merged[1:]
		if e.failed(e.device.ctx.Wait(s.stream), s) {
			return true
		}
		e.finish(s)
	}
	if n := len(e.clustered); n > 1 || (n == 1 && s == nil) {
		s := e.clustered[0]
		e.clustered = e.clustered[1:]
		if e.failed(e.second(s), s) {
			return true
		}
		e.merged = append(e.merged, s)
	}
	return true
}

// second waits for the numbers of cores and starts the second stage.
func (e *executor) second(s *slot) error {
	if err := e.device.ctx.Wait(s.stream); err != nil {
		return err
	}
	for _, t := range s.tasks {
		if p := t.plan; p != nil && !compress.Feasible(p.Plan, t.head[2*p.groups:]) && p.doubles() {
			t.again = true
		}
	}
	return e.device.stage2(s)
}

// finish hands a batch over to its callers.
func (e *executor) finish(s *slot) {
	if b := e.cfg.Observer.Batch; b != nil {
		b(e.device.observe(s))
	}
	e.q.finish(s)
}

// observe measures a batch that has been through.
func (d *device) observe(s *slot) Batch {
	b := Batch{Pages: len(s.tasks), Bytes: s.in.used, Queued: s.started.Sub(s.opened)}
	between := func(from, to int) time.Duration {
		ms, err := d.ctx.Milliseconds(s.events[from], s.events[to])
		if err != nil {
			return 0
		}
		return time.Duration(float64(ms) * float64(time.Millisecond))
	}
	b.CopyIn, b.CopyOut = between(0, 1), between(4, 5)
	b.Kernels = between(1, 2) + between(3, 4)
	return b
}

// failed deals with a failure of a batch: its pages are recomputed elsewhere, and so are those of every other batch when the
// device is lost.
func (e *executor) failed(err error, s *slot) bool {
	if err == nil {
		return false
	}
	why := reasonLaunch
	var code *cuda.Error
	if lost(err) {
		why = reasonLost
	} else if errors.As(err, &code) && code.Code == cuda.OutOfMemory {
		why = reasonMemory
	}
	if why != reasonLost {
		// What was enqueued may still write to the slot.
		if e.device.ctx.Wait(s.stream) != nil {
			why = reasonLost
		}
	}
	e.giveUp(s, why, err)
	if why != reasonLost {
		return true
	}
	e.q.lose(err)
	if f := e.cfg.Observer.Lost; f != nil {
		f(err)
	}
	for _, s := range append(e.merged, e.clustered...) {
		e.giveUp(s, why, err)
	}
	e.merged, e.clustered = nil, nil
	for s := e.q.take(); s != nil; s = e.q.take() {
		s.filling.Wait()
		e.giveUp(s, why, err)
	}
	e.q.drain(e.device)      // nobody reads memory that is about to go
	_ = e.device.ctx.Reset() // a lost context can only be destroyed
	e.device = nil
	e.backoff = probeFirst
	return true
}

func (e *executor) giveUp(s *slot, why reason, err error) {
	for _, t := range s.tasks {
		t.why, t.err = why, err
	}
	e.q.finish(s)
}

// probe waits, and tries to get a lost device back.
func (e *executor) probe() bool {
	if e.q.sleep(e.cfg.scaled(e.backoff)) {
		return false
	}
	next := min(2*e.backoff, probeMost)
	if e.open() != nil {
		e.device = nil
		e.backoff = next
	} else if f := e.cfg.Observer.Recovered; f != nil {
		f()
	}
	return true
}
