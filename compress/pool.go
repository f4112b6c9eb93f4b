package compress

import (
	"sync"
	"sync/atomic"
)

// pool runs the loops of pages on a fixed set of goroutines. A caller always works on its own loop and is joined by
// the helpers that happen to be idle, so that one page uses the whole machine and many pages share it without a queue.
type pool struct {
	loops   chan *loop
	helpers sync.WaitGroup
	size    int // goroutines that may work on one loop, the caller included
}

// loop is over n independent tasks. It is owned by a crew and reused.
type loop struct {
	task func(worker, i int)
	n    int64
	next atomic.Int64
	slot atomic.Int64
	busy sync.WaitGroup
}

func newPool(workers int) *pool {
	p := &pool{loops: make(chan *loop), size: workers}
	for range workers - 1 {
		p.helpers.Add(1)
		go func() {
			defer p.helpers.Done()
			for l := range p.loops {
				l.work()
				l.busy.Done()
			}
		}()
	}
	return p
}

func (p *pool) close() {
	close(p.loops)
	p.helpers.Wait()
}

// run calls task(worker, i) for every i in [0, n), where worker < p.size is exclusive to the goroutine that calls it.
func (p *pool) run(l *loop, n int, task func(worker, i int)) {
	l.task, l.n = task, int64(n)
	l.next.Store(0)
	l.slot.Store(0)
	for range min(n, p.size) - 1 {
		l.busy.Add(1)
		select {
		case p.loops <- l:
		default: // nobody is idle
			l.busy.Done()
		}
	}
	l.work()
	l.busy.Wait()
}

func (l *loop) work() {
	worker := int(l.slot.Add(1) - 1)
	for {
		i := l.next.Add(1) - 1
		if i >= l.n {
			return
		}
		l.task(worker, int(i))
	}
}

// crew is who works on one page: the pool, and the loop that the page is in.
type crew struct {
	pool *pool
	loop loop
}

// each calls task(worker, i) for every i in [0, n) and waits. worker counts from zero, is below the size of the pool and belongs to
// one goroutine at a time. Every task writes only what is its own, so no task takes a lock.
func (c *crew) each(n int, task func(worker, i int)) { c.pool.run(&c.loop, n, task) }
