package compress

import (
	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/internal/simd"
)

// page is one page in flight, as all its phases see it: its plan, how its keys are turned, and who works on it. Planes, groups
// and the indices of tokens are those of the plan. What a phase finds is not here: the phase returns it.
type page struct {
	Plan
	rotation
	crew

	kernel *simd.Kernels
	half   *simd.Half // of the page's type; nil when it has no 16 bits
	stride int        // of rows of floats, dim padded
	need   int64      // bytes of scratch that it takes
	askers []asker    // [workers], memory that no phase leaves anything in
}

// begin takes a page in. Both are checked; they are read until forget.
func (pg *page) begin(in *Input, opt *Options) error {
	if opt.Keep == Attended && opt.Exact > 0 && in.Q == nil {
		return badInput(codes.PageNoQueries, "the page carries no q, which this method chooses tokens by")
	}
	if opt.Fold && in.Q == nil {
		return badInput(codes.PageNoQueries, "the page carries no q, along which a bias is folded into the keys")
	}
	if opt.HeadWeights != nil && len(opt.HeadWeights) != in.planes() {
		return badInput(codes.HeadWeights, "there are weights for %d heads, the page has %d layers of %d", len(opt.HeadWeights), in.Layers, in.Heads)
	}
	if err := pg.use(in.Rope, opt.Rotated); err != nil {
		return err
	}
	pg.need = in.Size().scratch(opt, opt.ChunkMax)
	pg.prepare(in, opt)
	pg.stride, pg.half = simd.Stride(in.Dim), halfOf(pg.kernel, in.DType)
	return nil
}

// forget drops what the caller owns.
func (pg *page) forget() { pg.in, pg.opt = nil, nil }

// affords reports whether the options allow the scratch of longer chunks, of at most maxLen tokens, and counts it if so. What was
// there before may not have been collected yet, so that both count.
func (pg *page) affords(maxLen int) bool {
	need := pg.need + pg.in.Size().scratch(pg.opt, maxLen)
	if pg.opt.MaxScratch > 0 && need > pg.opt.MaxScratch {
		return false
	}
	pg.need = need
	return true
}

// teaches reports whether the page has queries that teach and the options want them to.
func (pg *page) teaches() bool { return pg.in.Q != nil && !pg.Whole() && pg.opt.learns() }

// told reports whether the page says itself how much its tokens matter, and the options listen.
func (pg *page) told() bool { return pg.opt.Attention && pg.in.Importance != nil }

// direct reports whether the threshold is given and nothing else needs the similarities, so that only those between a seed and the
// tokens that are still free are computed: at 4x a quarter of them.
func (pg *page) direct() bool {
	return pg.opt.Budget == Fixed && pg.opt.Rest == Cluster && pg.opt.Exact == 0 && pg.heads == 1 && !pg.Whole()
}

// position is that of token i.
func (pg *page) position(i int) int32 { return pg.in.Positions[pg.sinks+i] }

// planesOf are the planes [from, to) of group g.
func (pg *page) planesOf(g int) (from, to int) { return g * pg.heads, (g + 1) * pg.heads }

// group returns the part of s that belongs to group g.
func group[T any](s []T, g, n int) []T { return s[g*n : (g+1)*n : (g+1)*n] }
