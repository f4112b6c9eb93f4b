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
	free   sync.Pool // of *phases: what no page has used for a while is given back
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
	c.free.New = func() any { return newPhases(c.pool, kernel) }
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
	p := c.take()
	defer c.put(p)
	if err := p.run(ctx, in, opt, out); err != nil {
		return err
	}
	out.Elapsed = time.Since(start)
	return nil
}

func (c *Compressor) take() *phases {
	p := c.free.Get().(*phases)
	p.page.need = 0
	return p
}

func (c *Compressor) put(p *phases) {
	p.page.forget()
	p.comparing.forget()
	p.held = max(p.held, p.page.need)
	if c.usual.Keep(p.page.need, p.held) {
		c.free.Put(p)
	}
}

// phases are what is done to a page, one after the other, each with its memory from page to page.
type phases struct {
	page       page
	learning   *learning
	comparing  *comparing
	budgeting  *budgeting
	clustering *clustering
	merging    *merging
	fitting    *fitting
	rounding   *rounding
	held       int64 // bytes that any page has needed
}

func newPhases(pool *pool, kernel *simd.Kernels) *phases {
	n := pool.size
	p := &phases{learning: newLearning(), comparing: newComparing(n), budgeting: newBudgeting(), clustering: newClustering(n),
		merging: newMerging(n), fitting: newFitting(n), rounding: newRounding(n)}
	p.page.pool, p.page.kernel, p.page.askers = pool, kernel, make([]asker, n)
	for i := range p.page.askers {
		p.page.askers[i].kernel = kernel
	}
	return p
}

// run compresses a page. A phase gets the page and what earlier phases found, and returns what it finds; the last three write the
// cores to out.
func (p *phases) run(ctx context.Context, in *Input, opt *Options, out *Result) error {
	pg := &p.page
	if err := pg.begin(in, opt); err != nil {
		return err
	}
	out.resize(in)
	var (
		taught *lessons      // what later queries get from the originals
		near   *similarities // which tokens are similar, and which may merge
		limits *thresholds   // how similar is similar enough for the budget
		found  *clusters     // which tokens become one core
	)
	steps := [...]func(){
		func() { taught = p.learning.run(pg) },
		func() { near = p.comparing.run(pg, taught) },
		func() { limits = p.budgeting.run(pg, near) },
		func() { found = p.clustering.run(pg, near, limits) },
		func() { p.merging.run(pg, near, found, out) },
		func() { p.fitting.run(pg, taught, out) },
		func() { p.rounding.run(pg, out) },
	}
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		step()
		if opt.Progress != nil {
			opt.Progress(i+1, len(steps))
		}
	}
	return nil
}
