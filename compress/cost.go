package compress

import (
	"math"
	"sync/atomic"

	"github.com/semproxy/semproxy/internal/simd"
)

// Size is what the cost of a page depends on.
type Size struct {
	Layers, Heads, Tokens, Dim int // Heads are KV heads
	Elem                       int // bytes of an element of K and V
	QHeads, Queries            int // 0: the page carries none
}

// Size of the page.
func (in *Input) Size() Size {
	s := Size{Layers: in.Layers, Heads: in.Heads, Tokens: in.Tokens, Dim: in.Dim, Elem: in.DType.Size()}
	if in.Q != nil {
		s.QHeads, s.Queries = in.QHeads, in.QWindow
	}
	return s
}

// Cost is what a page needs at most, known before anything is allocated. Work is counted in multiply-adds; what is none is
// counted as the multiply-adds that take as long.
type Cost struct {
	Scratch int64   // bytes that the compressor needs, beside a fixed amount per core
	Result  int64   // bytes of the result, and of the attention that is measured
	First   float64 // work of compressing once and, with queries, of attention over originals and cores
	Again   float64 // work of each further attempt: attention over the originals is known by then
}

// Bounds of the similarity phase: the longest chunk is reached by doubling, and each try computes all anew.
const (
	perSimilarity = 6  // ranking, counting at up to 17 thresholds and assigning, per similarity that is kept
	perElement    = 48 // conversions, rotations and sums that go over every element a few times
	perToken      = 96 // sorting and bookkeeping per token and head
	perTrig       = 24 // angles that no table holds, per pair of dimensions
)

// Cost of compressing a page of that size under these options; opt.MaxScratch is not looked at.
func (s Size) Cost(opt *Options) Cost {
	p, t, d := float64(s.Layers)*float64(s.Heads), float64(s.Tokens), float64(s.Dim)
	stride := float64(simd.Stride(s.Dim))
	c := Cost{Scratch: s.scratch(opt, opt.ChunkMax)}

	elements := 2 * p * t * d // of K and V
	perPlane := p * t
	c.Result = int64(elements*float64(s.Elem) + 20*perPlane)
	clustering := perElement*elements + perToken*perPlane
	if whole := opt.Budget != Fixed && opt.Slots(s.Tokens) >= s.Tokens; !whole {
		tries, sum := 0.0, 0.0
		for l := opt.ChunkMax; ; l = min(2*l, MaxChunk) {
			tries++
			sum += math.Min(float64(l), t)
			if opt.Rest != Cluster || opt.Budget == Fixed || l >= MaxChunk {
				break
			}
		}
		clustering += perPlane * (sum*(stride/2+perSimilarity) + tries*perTrig*d)
		if opt.Keep == Attended {
			clustering += tries * s.attention(s.Queries, s.Tokens) / 2
		}
	}
	if opt.learns() {
		clustering += s.learning()
	}
	asked := measured(s.Queries)
	cores := s.attention(asked, s.Tokens) // a head may keep them all
	c.First = clustering + s.attention(asked, s.Tokens) + cores
	c.Again = clustering + cores
	if s.Queries > 0 {
		out := float64(s.Layers) * float64(s.QHeads) * float64(asked) * d
		c.Result += int64(3 * 4 * out) // the turned queries, and what they get from originals and cores
		c.First += 4 * out
		c.Again += 4 * out
	}
	return c
}

// attention is the work of so many queries of each query head over n keys and values.
func (s Size) attention(queries, n int) float64 {
	if queries == 0 || s.Heads == 0 {
		return 0
	}
	per := float64(simd.Wide(s.QHeads/s.Heads*queries)) * float64(s.Layers) * float64(s.Heads)
	return per * float64(n) * s.look()
}

// look is the work of one query on one key: dot product, weighted sum, an exponential, and its part of widening both.
func (s Size) look() float64 {
	d := float64(s.Dim) + float64(simd.Wide(s.Dim))
	return d + 24 + 8*d/mostLanes
}

// teachers is how many turned queries of a KV head teach.
func (s Size) teachers() int {
	if s.Heads == 0 {
		return 0
	}
	return min(teachers, s.QHeads/s.Heads*s.Queries*teacherTurns)
}

// learning is the work of asking the teachers of the originals, twice, and of fitting the cores to them.
func (s Size) learning() float64 {
	n, d := float64(s.teachers()), float64(simd.Stride(s.Dim))
	planes := float64(s.Layers) * float64(s.Heads)
	ask := planes * float64(simd.Wide(int(n))) * float64(s.Tokens) * s.look()
	logits := ask / 2
	if n*float64(s.Tokens) > maxWeights {
		ask += logits // they are computed again
	}
	ask += logits                                                     // of the members
	fit := planes * (float64(s.Tokens)*n*(5*d+n/2) + 2*n*n*(n/3+2*d)) // as many cores as tokens, and two small systems
	return ask + fit
}

// scratch is the memory of a page's work with chunks of at most chunk tokens.
func (s Size) scratch(opt *Options, chunk int) int64 {
	p, t, d := float64(s.Layers)*float64(s.Heads), float64(s.Tokens), float64(s.Dim)
	groups := p
	if opt.Shared {
		groups = float64(s.Layers)
	}
	ld := float64(simStride(min(chunk, s.Tokens)))
	chunks := t/float64(max(min(opt.ChunkMin, chunk), 1)) + 1
	bytes := 4*p*(t+d) + 14*t + 31*groups*t
	if opt.Budget != Fixed && opt.Slots(s.Tokens) >= s.Tokens {
		return int64(bytes)
	}
	if opt.learns() {
		bytes += 4 * p * (t + float64(s.teachers()+1)*d)
	}
	bytes += 4*p*chunks*d + chunks*(24+4*d)
	if opt.Rest == Cluster && !opt.direct() {
		bytes += groups * (2*t*ld + chunks*ld/8)
	}
	return int64(bytes)
}

// direct is page.direct, but for the sharing of clusters.
func (o *Options) direct() bool { return o.Budget == Fixed && o.Exact == 0 && !o.Shared }

// mostLanes is how many queries attend together. maxWeights bounds the weights that are kept until it is known what they sum to: of
// more, logits are computed twice.
const mostLanes, maxWeights = 64, 4 << 20

// Usual is the memory that pages need as a rule. It says when memory that is kept between pages is to be given back: after an
// unusual page. The zero value is ready; it is safe for concurrent use.
type Usual struct{ bytes atomic.Int64 }

// keepBytes is what may always be kept.
const keepBytes = 64 << 20

// Keep takes in what a page needed, and reports whether memory that has grown to held bytes is worth keeping.
func (u *Usual) Keep(need, held int64) bool {
	mean := u.bytes.Load()
	mean += (need - mean) / 8
	u.bytes.Store(mean) // of two at once one is lost, which a mean may
	return held <= keepBytes || held <= 4*mean
}
