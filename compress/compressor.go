package compress

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/semproxy/semproxy/internal/simd"
)

// Compressor compresses pages on the CPU. It is safe for concurrent use; concurrent pages share its workers. Memory is
// kept between pages, so that in steady state a page allocates nothing; after an unusually costly page it is given back.
type Compressor struct {
	pool   *pool
	kernel *simd.Kernels
	free   sync.Pool // of *work: what no page has used for a while is given back
	usual  Usual
}

// New starts a compressor with that many workers; 0 means one per processor. Close stops them.
func New(workers int) *Compressor {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return newWith(workers, simd.Best())
}

func newWith(workers int, kernel *simd.Kernels) *Compressor {
	c := &Compressor{pool: newPool(workers), kernel: kernel}
	c.free.New = func() any { return newWork(workers, kernel) }
	return c
}

// Device names where the work is done, such as "cpu:avx512".
func (c *Compressor) Device() string { return "cpu:" + c.kernel.Name }

// Close stops the workers and waits for them. No call may be running or follow.
func (c *Compressor) Close() { c.pool.close() }

// Workers is the number of goroutines that may work on one page.
func (c *Compressor) Workers() int { return c.pool.size }

// Compress merges the tokens of in as opt says into out, whose memory is reused. It returns an *InputError for input that
// cannot be compressed, and ctx's error when it is cancelled between two phases; out is then unspecified.
func (c *Compressor) Compress(ctx context.Context, in *Input, opt *Options, out *Result) error {
	start := time.Now()
	if err := in.Check(); err != nil {
		return err
	}
	if err := opt.Check(); err != nil {
		return err
	}
	w := c.take()
	defer c.put(w)
	if err := w.begin(in, opt, out); err != nil {
		return err
	}
	for i, step := range w.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		step(c.pool)
		if opt.Progress != nil {
			opt.Progress(i+1, len(w.steps))
		}
	}
	out.Elapsed = time.Since(start)
	return nil
}

func (c *Compressor) take() *work {
	w := c.free.Get().(*work)
	w.need = 0
	return w
}

func (c *Compressor) put(w *work) {
	w.in, w.opt, w.out = nil, nil, nil
	w.held = max(w.held, w.need)
	if c.usual.Keep(w.need, w.held) {
		c.free.Put(w)
	}
}
