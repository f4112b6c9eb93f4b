package forward

import (
	"runtime"
	"sync"
)

// turnless is how much of a body is looked at without waiting for a turn: nearly all bodies are shorter.
const turnless = 64 << 10

// turns share the processor among tenants with long bodies. A piece of one is looked at when its turn comes: a tenant has one at a
// time, however many bodies it sends, and all together have half of the processor, so that short requests find room beside them.
// Pieces are small, and who waits is served in order.
type turns struct {
	all chan struct{}

	mu      sync.Mutex
	tenants map[string]chan struct{}
}

func newTurns() *turns {
	return &turns{all: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), tenants: map[string]chan struct{}{}}
}

// wait returns when it is the tenant's turn, which ends with done. The name must come from a bounded set, such as the entries of the
// policy.
func (t *turns) wait(tenant string) (done func()) {
	t.mu.Lock()
	one := t.tenants[tenant]
	if one == nil {
		one = make(chan struct{}, 1)
		t.tenants[tenant] = one
	}
	t.mu.Unlock()
	one <- struct{}{}
	t.all <- struct{}{}
	return func() {
		<-t.all
		<-one
	}
}
