package compress

import (
	"math/bits"
	"sync/atomic"

	"github.com/semproxy/semproxy/internal/simd"
)

// countBlock is the number of chunks that are counted before the limit is looked at: a multiple of what any kernel takes side
// by side.
const countBlock = 48

// count returns the number of cores of group g at threshold t and adds it to spent. It stops once that exceeds limit.
func (s *similarities) count(kn *simd.Kernels, g, t int, spent *atomic.Int64, limit int64) int {
	sim, live := group(s.sim, g, s.simSize()), group(s.live, g, s.liveSize())
	total := s.n // all that is no candidate is a core
	for _, x := range live {
		total -= bits.OnesCount64(x)
	}
	sum := spent.Add(int64(total))
	for k := 0; k < len(s.chunks) && sum <= limit; k += countBlock {
		end := min(k+countBlock, len(s.chunks))
		n := kn.Count(sim, s.ld, s.starts[k:end], live[k*s.words:end*s.words], t)
		total += n
		sum = spent.Add(int64(n))
	}
	return total
}

// least is the number of cores of group g when everything that may merge does: below every similarity, each chunk with a candidate
// is one cluster, and every single is one more.
func (s *similarities) least(g int) int {
	single, least := group(s.single, g, s.n), 0
	for _, c := range s.chunks {
		merges := 0
		for _, alone := range single[c.lo:c.hi] {
			if alone {
				least++
			} else {
				merges = 1
			}
		}
		least += merges
	}
	return least
}
