package compress

import (
	"context"
	"math"

	"github.com/semproxy/semproxy/codes"
	"github.com/semproxy/semproxy/internal/simd"
)

// Attention holds the outputs of a page's last queries, [Layers, QHeads, Window, Dim]. It may be reused.
type Attention struct {
	Layers, Heads, Window, Dim int
	Out                        []float32
	// Looks, [Layers, QHeads, Window], is the largest weight that a query gives to one token which is neither among the first nor
	// among the last: near one, the query looks something up. Over the originals only; empty over cores.
	Looks []float32
}

// Fidelity says how close attention over the cores comes to attention over the originals.
type Fidelity struct {
	Error      float64 // relative error of the outputs, |cores - originals| / |originals|, averaged over layers and query heads
	Worst      float64 // the largest error of a head
	WorstLayer int
	WorstHead  int       // query head
	Heads      []float64 // [Layers, QHeads], reused by Compare
	// Lookup is the relative error of the queries that look one token up, and of the heads that do: it says how many facts are
	// lost, where the mean over all heads does not (docs/explanation/algorithm.md). 0 when the originals' Looks are not known.
	Lookup float64
}

// Attend computes the outputs of in's queries over the originals when res is nil, else over the cores of res with the log
// of their counts added to the logits (proportional attention). All queries see all keys: they come after the page.
func (c *Compressor) Attend(ctx context.Context, in *Input, res *Result, out *Attention) error {
	return c.attend(ctx, in, res, out, true)
}

func (c *Compressor) attend(ctx context.Context, in *Input, res *Result, out *Attention, bias bool) error {
	if err := in.Check(); err != nil {
		return err
	}
	if in.Q == nil {
		return badInput(codes.PageNoQueries, "the page carries no q: attention error cannot be measured")
	}
	p := c.take()
	defer c.put(p)
	out.Layers, out.Heads, out.Window, out.Dim = in.Layers, in.QHeads, in.QWindow, in.Dim
	out.Out, out.Looks = grow(out.Out, in.Layers*in.QHeads*in.QWindow*in.Dim), out.Looks[:0]
	if res == nil {
		out.Looks = grow(out.Looks, in.Layers*in.QHeads*in.QWindow)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// One task is one KV head with its query heads. The closure is the one allocation of a measurement.
	p.page.each(in.planes(), func(worker, plane int) {
		kv := entriesOf(in, res, plane)
		if !bias {
			kv.bias = nil
		}
		p.page.askers[worker].attend(in, kv, plane, out)
	})
	return ctx.Err()
}

// entries are the keys and values that the queries of one KV head attend to.
type entries struct {
	k, v           []byte
	n              int
	bias           []float32 // nil: none
	kscale, vscale float32
	dtype          DType
}

// entriesOf are the originals of in when res is nil, else the cores of res.
func entriesOf(in *Input, res *Result, plane int) entries {
	if res == nil {
		rb := in.rowBytes()
		return entries{n: in.Tokens, dtype: in.DType, kscale: scaleOf(in.KScale, plane), vscale: scaleOf(in.VScale, plane),
			k: group(in.K, plane, in.Tokens*rb), v: group(in.V, plane, in.Tokens*rb)}
	}
	rb := in.Dim * res.DType.Size()
	s := entries{n: int(res.Slots[plane]), dtype: res.DType, bias: group(res.Bias, plane, res.Cores),
		k: group(res.K, plane, res.Cores*rb), v: group(res.V, plane, res.Cores*rb), kscale: 1, vscale: 1}
	if res.DType.FP8() {
		s.kscale, s.vscale = res.KScale[plane], res.VScale[plane]
	}
	return s
}

// queries is how many queries look at the keys of one KV head.
func (in *Input) queries() int { return in.QHeads / in.Heads * in.QWindow }

// firstQuery is the index in Q, in elements, of the first query of a plane's query heads.
func (in *Input) firstQuery(plane int) int {
	per := in.QHeads / in.Heads
	layer, head := plane/in.Heads, plane%in.Heads
	return (layer*in.QHeads + head*per) * in.QWindow * in.Dim
}

// attend runs every query of the plane's query heads over its entries, a block of queries at a time, and writes to out what they get.
// Queries of all heads of the group are taken together, so that a key is widened once for all of a block.
func (a *asker) attend(in *Input, kv entries, plane int, out *Attention) {
	nq := in.queries()
	for from := 0; from < nq; from += mostLanes {
		n := min(mostLanes, nq-from)
		first := in.firstQuery(plane)/in.Dim + from
		what := outputsOnly
		if len(out.Looks) > 0 {
			what = middle
		}
		got := a.ask(a.given(in, plane, from, n), n, kv, in.Dim, what)
		if what == middle {
			got.lookups(out.Looks[first : first+n])
		}
		got.outputs(out.Out[first*in.Dim:(first+n)*in.Dim], in.Dim)
	}
}

// given are nq of the plane's own queries, from one on, scaled by 1/sqrt(dim): [nq rounded up to 4, stride], in the asker's memory.
func (a *asker) given(in *Input, plane, from, nq int) []float32 {
	kn, d, stride := a.kernel, in.Dim, simd.Stride(in.Dim)
	first := in.firstQuery(plane) + from*d
	a.queries = grow(a.queries, (nq+3)&^3*stride)
	clear(a.queries)
	for q := range nq {
		row := a.queries[q*stride : q*stride+d]
		widen(kn, row, in.Q[(first+q*d)*in.QDType.Size():], in.QDType, 1)
		kn.Scale(row, float32(1/math.Sqrt(float64(d))))
	}
	return a.queries
}

// Compare fills f with the relative error of got against want, per layer and query head.
func (f *Fidelity) Compare(want, got *Attention) {
	f.Heads = grow(f.Heads, want.Layers*want.Heads)
	f.Error, f.Worst, f.WorstLayer, f.WorstHead = 0, -1, 0, 0
	size := want.Window * want.Dim
	for i := range f.Heads {
		e := relativeError(group(want.Out, i, size), group(got.Out, i, size))
		f.Heads[i] = e
		f.Error += e / float64(len(f.Heads))
		if e > f.Worst {
			f.Worst, f.WorstLayer, f.WorstHead = e, i/want.Heads, i%want.Heads
		}
	}
	f.Lookup = f.lookup(want, got)
}

// lookup is the geometric mean of two weighed means: of the queries' errors, by the fourth power of their looks, and of the
// heads' errors, by the square of their mean look.
func (f *Fidelity) lookup(want, got *Attention) float64 {
	if len(want.Looks) == 0 {
		return 0
	}
	var byQuery, queries, byHead, heads float64
	for i, e := range f.Heads {
		mean := 0.0
		for q, look := range group(want.Looks, i, want.Window) {
			row := i*want.Window + q
			weight := math.Pow(float64(look), 4)
			byQuery += weight * min(relativeError(group(want.Out, row, want.Dim), group(got.Out, row, want.Dim)), 2)
			queries += weight
			mean += float64(look) / float64(want.Window)
		}
		byHead += mean * mean * min(e, 2)
		heads += mean * mean
	}
	return math.Sqrt(byQuery / (queries + 1e-30) * byHead / (heads + 1e-30))
}

// relativeError is |got - want| / |want|; 1 where there is something in place of nothing.
func relativeError(want, got []float32) float64 {
	diff, full := 0.0, 0.0
	for k, x := range want {
		e := float64(got[k]) - float64(x)
		diff += e * e
		full += float64(x) * float64(x)
	}
	switch {
	case full > 0:
		return math.Sqrt(diff / full)
	case diff > 0:
		return 1
	}
	return 0
}
