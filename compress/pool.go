package compress

import (
	"sync"
	"sync/atomic"
)

// pool runs the phases of pages on a fixed set of goroutines. A caller always works on its own phase and is joined by
// the helpers that happen to be idle, so that one page uses the whole machine and many pages share it without a queue.
type pool struct {
	jobs    chan *phase
	helpers sync.WaitGroup
	size    int // goroutines that may work on one phase, the caller included
}

// phase is a loop over n independent tasks. It is owned by a work and reused.
type phase struct {
	task func(worker, i int)
	n    int64
	next atomic.Int64
	slot atomic.Int64
	busy sync.WaitGroup
}

func newPool(workers int) *pool {
	p := &pool{jobs: make(chan *phase), size: workers}
	for range workers - 1 {
		p.helpers.Add(1)
		go func() {
			defer p.helpers.Done()
			for ph := range p.jobs {
				ph.work()
				ph.busy.Done()
			}
		}()
	}
	return p
}

func (p *pool) close() {
	close(p.jobs)
	p.helpers.Wait()
}

// run calls task(worker, i) for every i in [0, n), where worker < p.size is exclusive to the goroutine that calls it.
func (p *pool) run(ph *phase, n int, task func(worker, i int)) {
	ph.task, ph.n = task, int64(n)
	ph.next.Store(0)
	ph.slot.Store(0)
	for range min(n, p.size) - 1 {
		ph.busy.Add(1)
		select {
		case p.jobs <- ph:
		default: // nobody is idle
			ph.busy.Done()
		}
	}
	ph.work()
	ph.busy.Wait()
}

func (ph *phase) work() {
	worker := int(ph.slot.Add(1) - 1)
	for {
		i := ph.next.Add(1) - 1
		if i >= ph.n {
			return
		}
		ph.task(worker, int(i))
	}
}
