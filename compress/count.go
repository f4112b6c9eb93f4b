package compress

import (
	"math/bits"
	"sync/atomic"
)

// countBlock is the number of chunks that are counted before the limit is looked at: a multiple of what any kernel takes side
// by side.
const countBlock = 48

// countAll leaves in counts the number of cores of every group at threshold t and returns their sum. Once that is certain to
// exceed limit the counting stops: the sum is then some number above it, and counts is unspecified.
func (w *work) countAll(p *pool, t, limit int) int {
	w.try, w.limit = t, int64(limit)
	w.spent.Store(0)
	p.run(&w.phase, w.groups, w.countTask)
	return int(w.spent.Load())
}

func (w *work) count(_, g int) { w.counts[g] = w.countGroup(g, w.try, &w.spent, w.limit) }

// countGroup returns the number of cores of group g at threshold t and adds it to spent. It stops once that exceeds limit.
func (w *work) countGroup(g, t int, spent *atomic.Int64, limit int64) int {
	sim, live := group(w.sim, g, w.simSize()), group(w.live, g, len(w.chunks)*w.words)
	total := w.n // all that is no candidate is a core
	for _, x := range live {
		total -= bits.OnesCount64(x)
	}
	sum := spent.Add(int64(total))
	for k := 0; k < len(w.chunks) && sum <= limit; k += countBlock {
		end := min(k+countBlock, len(w.chunks))
		n := w.kernel.Count(sim, w.ld, w.starts[k:end], live[k*w.words:end*w.words], t)
		total += n
		sum = spent.Add(int64(n))
	}
	return total
}
