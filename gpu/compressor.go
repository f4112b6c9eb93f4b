package gpu

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu/cuda"
)

// CPU does what the device does not: *compress.Compressor.
type CPU interface {
	Compress(ctx context.Context, in *compress.Input, opt *compress.Options, out *compress.Result) error
	Attend(ctx context.Context, in *compress.Input, res *compress.Result, out *compress.Attention) error
	Device() string
}

// Defaults of Options.
const (
	DefaultMemory  = 1 << 30
	DefaultLatency = 200 * time.Microsecond
	// MinMemory is what a slot's tables and a small page take.
	MinMemory = 32 << 20
)

// Options of a device.
type Options struct {
	Device   int           // index
	Library  string        // path of the driver; empty: where the system has it
	Memory   int           // bytes of the device's memory that batches may take, half as many of pinned host memory; 0: DefaultMemory
	Latency  time.Duration // how long a page may wait for others to share a batch; 0: DefaultLatency, negative: not at all
	Observer Observer

	hurry bool // tests: do not wait before a lost device is probed
}

// Observer is told what happens. Its functions may be nil, are called from several goroutines and must not block.
type Observer struct {
	Batch     func(Batch)
	Fallback  func(reason string, err error) // a page went to the CPU; err is nil where that says nothing more
	Lost      func(err error)                // the device is not used until it recovers
	Recovered func()
}

// Batch is what a batch took.
type Batch struct {
	Pages                    int
	Bytes                    int           // copied in
	Queued                   time.Duration // from the first page's coming to the start
	CopyIn, Kernels, CopyOut time.Duration // busy times of the device
}

func (o *Options) scaled(d time.Duration) time.Duration {
	if o.hurry {
		return time.Millisecond
	}
	return d
}

// Compressor compresses pages on one device, and on the CPU those that the device cannot take. It is safe for concurrent use.
type Compressor struct {
	cpu    CPU
	cfg    Options
	info   cuda.Info
	queue  *queue
	tables tables
	done   chan struct{}
}

// Open prepares a device. The error says why it cannot be used; it wraps cuda.ErrNoDriver or cuda.ErrOldDriver where that is
// the reason. Close frees it; cpu stays the caller's.
func Open(cpu CPU, opt Options) (*Compressor, error) {
	if opt.Memory == 0 {
		opt.Memory = DefaultMemory
	}
	if opt.Latency == 0 {
		opt.Latency = DefaultLatency
	}
	if opt.Memory < MinMemory {
		return nil, fmt.Errorf("gpu: %d bytes of memory are too few, at least %d", opt.Memory, MinMemory)
	}
	driver, err := cuda.Open(opt.Library)
	if err != nil {
		return nil, err
	}
	devices, err := driver.Devices()
	if err != nil {
		return nil, err
	}
	if opt.Device < 0 || opt.Device >= len(devices) {
		return nil, fmt.Errorf("gpu: there is no device %d, the driver has %d", opt.Device, len(devices))
	}
	c := &Compressor{cpu: cpu, cfg: opt, info: devices[opt.Device], queue: newQueue(opt.Latency), done: make(chan struct{})}
	e := &executor{q: c.queue, driver: driver, info: c.info, cfg: &c.cfg}
	opened := make(chan error, 1)
	go func() {
		defer close(c.done)
		e.run(opened)
	}()
	if err := <-opened; err != nil {
		<-c.done
		return nil, err
	}
	return c, nil
}

// Close waits for the pages that are in, and frees the device. Pages that come later go to the CPU.
func (c *Compressor) Close() {
	c.queue.close()
	<-c.done
}

// Info describes the device.
func (c *Compressor) Info() cuda.Info { return c.info }

// Device names where pages are compressed at present: "cuda:0", or the CPU's name while the device is lost.
func (c *Compressor) Device() string {
	if c.queue.available() {
		return c.name()
	}
	return c.cpu.Device()
}

func (c *Compressor) name() string { return fmt.Sprintf("cuda:%d", c.cfg.Device) }

// Compress is compress.Compressor's, on the device where it can be.
func (c *Compressor) Compress(ctx context.Context, in *compress.Input, opt *compress.Options, out *compress.Result) error {
	_, err := c.Measure(ctx, in, nil, opt, out, nil, nil)
	return err
}

// Stats says what became of one page.
type Stats struct {
	Device string        // where it was computed
	Queued time.Duration // how long it waited for its batch to start; 0 on the CPU
	Batch  int           // pages of its batch; 0 on the CPU
}

// Measure compresses a page as Compress does and computes the outputs of probe's queries over the originals and over the cores,
// as two calls of Attend would, while the page is on the device. probe is the same page with other queries; full and got may be
// nil, and then probe may be.
func (c *Compressor) Measure(ctx context.Context, in, probe *compress.Input, opt *compress.Options, out *compress.Result, full, got *compress.Attention) (Stats, error) {
	start := time.Now()
	if err := in.Check(); err != nil {
		return Stats{}, err
	}
	if err := opt.Check(); err != nil {
		return Stats{}, err
	}
	page, options := *in, *opt // the device may still look at them when the caller has given up
	p, why, err := newPlan(&page, &options)
	if err != nil {
		return Stats{}, err
	}
	if why == 0 && (full != nil || got != nil) { // the plan has what it needs of the page's own
		page.Q, page.QDType, page.QHeads, page.QWindow, page.QPositions = probe.Q, probe.QDType, probe.QHeads, probe.QWindow, nil
	}
	if why != 0 {
		return c.elsewhere(ctx, why, nil, in, probe, opt, out, full, got)
	}
	for {
		t := newTask(p, &page, nil, false, got != nil) // over the originals the CPU also says where queries look
		if err := c.submit(ctx, t); err != nil {
			return Stats{}, err
		}
		if t.why != 0 {
			return c.elsewhere(ctx, t.why, t.err, in, probe, opt, out, full, got)
		}
		if t.again {
			c.queue.leave(t.slot)
			p = p.doubled()
			if p.tooWide() {
				return c.elsewhere(ctx, reasonShape, nil, in, probe, opt, out, full, got)
			}
			continue
		}
		t.result(out)
		if t.got {
			t.attention(got, t.bytes.got)
		}
		c.queue.leave(t.slot)
		if full != nil {
			if err := c.cpu.Attend(ctx, probe, nil, full); err != nil {
				return Stats{}, err
			}
		}
		if opt.Progress != nil {
			opt.Progress(1, 1)
		}
		out.Elapsed = time.Since(start)
		return Stats{Device: c.name(), Queued: t.queued, Batch: t.pages}, nil
	}
}

// Attend is compress.Compressor's, on the device where it can be.
func (c *Compressor) Attend(ctx context.Context, in *compress.Input, res *compress.Result, out *compress.Attention) error {
	if err := in.Check(); err != nil {
		return err
	}
	if in.Q == nil || in.Dim%8 != 0 || in.Dim > maxDim {
		return c.cpu.Attend(ctx, in, res, out)
	}
	page := *in
	t := newTask(nil, &page, res, true, false)
	if err := c.submit(ctx, t); err != nil {
		return err
	}
	if t.why != 0 {
		c.fellBack(t.why, t.err)
		return c.cpu.Attend(ctx, in, res, out)
	}
	t.attention(out, t.bytes.full)
	c.queue.leave(t.slot)
	return nil
}

// submit takes a task through a batch. When it returns nil and the task has no reason to go elsewhere, the caller takes the
// result and leaves the slot.
func (c *Compressor) submit(ctx context.Context, t *task) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in, work, why, err := c.queue.enter(ctx, t)
	if why != 0 {
		t.why, t.err = why, err
		return nil
	}
	if err != nil {
		return err
	}
	func() {
		defer t.slot.filling.Done()
		var rope *table
		if t.plan != nil {
			rope = c.tables.of(t.in.Rope, t.plan.freq, t.plan.span+1)
		}
		t.fill(in, work, rope)
	}()
	select {
	case <-t.done:
	case <-ctx.Done():
		if c.queue.abandon(t) {
			return ctx.Err()
		}
	}
	if t.why != 0 {
		c.queue.leave(t.slot)
	}
	runtime.KeepAlive(t.in)
	return nil
}

// elsewhere computes a page on the CPU.
func (c *Compressor) elsewhere(ctx context.Context, why reason, cause error, in, probe *compress.Input, opt *compress.Options,
	out *compress.Result, full, got *compress.Attention) (Stats, error) {
	stats := Stats{Device: c.cpu.Device()}
	c.fellBack(why, cause)
	if err := c.cpu.Compress(ctx, in, opt, out); err != nil {
		return stats, err
	}
	if full != nil {
		if err := c.cpu.Attend(ctx, probe, nil, full); err != nil {
			return stats, err
		}
	}
	if got != nil {
		return stats, c.cpu.Attend(ctx, probe, out, got)
	}
	return stats, nil
}

func (c *Compressor) fellBack(why reason, err error) {
	if f := c.cfg.Observer.Fallback; f != nil && why != reasonWhole {
		f(why.String(), err)
	}
}
