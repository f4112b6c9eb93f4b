package gpu

import (
	"sync"
	"time"
	"unsafe"

	"github.com/semproxy/semproxy/gpu/cuda"
)

const (
	slots     = 3       // batches at a time: one is copied in, one computed, one copied out
	mostTasks = 64      // pages of a batch
	headWords = 1 << 16 // 32-bit words that a batch's pages have for their heads
)

// slot is the memory and the stream of one batch.
//
// Callers reserve their share and fill it at the same time; the executor then owns the slot until the batch has been through;
// then each caller takes its result out. The last one to leave returns the slot.
type slot struct {
	stream  cuda.Stream
	events  [6]cuda.Event // start, copied in, computed; the same of the second stage
	in      arena         // first the jobs and the tables of blocks, then the heads, then the pages
	work    arena
	out     arena
	pledged int // bytes of out that the tasks may need; out itself holds what has its place
	heads   int // 32-bit words taken
	headers int // bytes of in before the heads

	device  *device
	tasks   []*task
	opened  time.Time      // when the first task came
	started time.Time      // when the batch was formed
	filling sync.WaitGroup // callers that still copy
	users   int            // callers that have not taken their result, and the executor; the queue's lock guards it
}

// kinds of block tables: what a kernel's blocks are.
const (
	byTile  = iota // of a group
	byChunk        // of a group
	byGroup
	byPlane
	bySelection // a group, or the page
	byJob
	byCount   // chunks of groups at three thresholds, several to a block
	byChunks  // chunks of groups, several to a block
	byCore    // cores of planes, several to a block
	byTensor  // K and V of planes
	byQueries // queries of planes, several to a block
	byTokens  // tokens of planes, several to a block
	byAsks    // queries of planes that teach, several to a block
	byWidth   // cores of planes that are fitted, several to a block
	kinds
)

const (
	jobBytes  = int(unsafe.Sizeof(job{}))
	firstSize = 4 * (mostTasks + 1)
)

func headerBytes() int { return aligned(mostTasks*jobBytes) + aligned(kinds*firstSize) }

// reset empties the slot.
func (s *slot) reset() {
	s.headers = headerBytes()
	s.in.used, s.work.used, s.out.used, s.pledged, s.heads = s.headers+aligned(4*headWords), 0, 0, 0, 0
	s.tasks = s.tasks[:0]
}

// fits reports whether there is room for one more.
func (s *slot) fits(t *task) bool {
	return len(s.tasks) < mostTasks && s.heads+t.heads() <= headWords &&
		s.in.fits(t.needs.in) && s.work.fits(t.needs.work) && s.pledged+t.needs.out <= s.out.size
}

// takes reports whether the task fits the slot when it is empty.
func (s *slot) takes(t *task) bool {
	used := headerBytes() + aligned(4*headWords)
	return t.heads() <= headWords && used+t.needs.in <= s.in.size && t.needs.work <= s.work.size && t.needs.out <= s.out.size
}

// reserve takes a task in and returns its share of the memory.
func (s *slot) reserve(t *task) (in, work *arena) {
	if len(s.tasks) == 0 {
		s.opened = time.Now()
	}
	share := func(a *arena, n int) *arena {
		base, host := a.take(n)
		return &arena{base: base, host: host, size: aligned(n)}
	}
	in, work = share(&s.in, t.needs.in), share(&s.work, t.needs.work)
	s.pledged += aligned(t.needs.out) // what depends on the number of cores gets its place when that is known
	t.place(&s.out)
	at := s.headers + 4*s.heads
	t.head = view[int32](s.in.host[at : at+4*t.heads()])
	s.heads += t.heads()
	clear(t.head)
	g := cuda.Pointer(t.heads() / 3 * 4)
	base := s.in.base + cuda.Pointer(at)
	t.dev.threshold, t.dev.cores, t.dev.least = base, base+g, base+2*g
	t.slot = s
	s.tasks = append(s.tasks, t)
	s.filling.Add(1)
	s.users++
	return in, work
}

// tables writes the jobs and, for every kind, the blocks before each.
func (s *slot) tables(blocks func(t *task, kind int) int) (totals [kinds]int, jobs int) {
	first := view[int32](s.in.host[aligned(mostTasks*jobBytes):][:kinds*firstSize])
	for _, t := range s.tasks {
		if t.plan == nil {
			continue
		}
		copy(s.in.host[jobs*jobBytes:], bytesOf(&t.dev))
		for k := range totals {
			first[k*(mostTasks+1)+jobs] = int32(totals[k])
			totals[k] += blocks(t, k)
		}
		jobs++
	}
	for k := range totals {
		first[k*(mostTasks+1)+jobs] = int32(totals[k])
	}
	return totals, jobs
}

// batch is the parameter of a kernel whose blocks are of a kind.
func (s *slot) batch(kind, jobs, arg int) batch {
	return batch{jobs: s.in.base, first: s.in.base + cuda.Pointer(aligned(mostTasks*jobBytes)+kind*firstSize), count: int32(jobs), arg: int32(arg)}
}
