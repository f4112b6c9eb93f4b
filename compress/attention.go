package compress

import (
	"context"
	"math"

	"github.com/semproxy/semproxy/compress/internal/simd"
)

// Attention holds the outputs of a page's last queries, [Layers, QHeads, Window, Dim]. It may be reused.
type Attention struct {
	Layers, Heads, Window, Dim int
	Out                        []float32
}

// Fidelity says how close attention over the cores comes to attention over the originals.
type Fidelity struct {
	Error      float64 // relative error of the outputs, |cores - originals| / |originals|, averaged over layers and query heads
	Worst      float64 // the largest error of a head
	WorstLayer int
	WorstHead  int       // query head
	Heads      []float64 // [Layers, QHeads], reused by Compare
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
		return badInput("page.no_queries", "the page carries no q: attention error cannot be measured")
	}
	w := c.take()
	defer c.put(w)
	out.Layers, out.Heads, out.Window, out.Dim = in.Layers, in.QHeads, in.QWindow, in.Dim
	out.Out = grow(out.Out, in.Layers*in.QHeads*in.QWindow*in.Dim)
	if err := ctx.Err(); err != nil {
		return err
	}
	// One task is one KV head with its query heads. The closure is the one allocation of a measurement.
	c.pool.run(&w.phase, in.planes(), func(worker, plane int) {
		kv := keysOf(in, res, plane)
		if !bias {
			kv.bias = nil
		}
		w.attendPlane(worker, in, kv, plane, out)
	})
	return ctx.Err()
}

// keys are the entries that one KV head attends to.
type keys struct {
	k, v           []byte
	n              int
	bias           []float32 // nil: none
	kscale, vscale float32
	dtype          DType
}

func keysOf(in *Input, res *Result, plane int) keys {
	if res == nil {
		rb := in.rowBytes()
		return keys{n: in.Tokens, dtype: in.DType, kscale: scaleOf(in.KScale, plane), vscale: scaleOf(in.VScale, plane),
			k: group(in.K, plane, in.Tokens*rb), v: group(in.V, plane, in.Tokens*rb)}
	}
	rb := in.Dim * res.DType.Size()
	s := keys{n: int(res.Slots[plane]), dtype: res.DType, bias: group(res.Bias, plane, res.Cores),
		k: group(res.K, plane, res.Cores*rb), v: group(res.V, plane, res.Cores*rb), kscale: 1, vscale: 1}
	if res.DType.FP8() {
		s.kscale, s.vscale = res.KScale[plane], res.VScale[plane]
	}
	return s
}

// attendRows is how many keys are widened at a time.
const attendRows = 32

// weights fills a.logits, [nq, ld], with the attention of every query of the plane's query heads to its keys. Queries of all
// heads of the group are taken together, so that each key is widened once.
func (w *work) weights(worker int, in *Input, kv keys, plane int) (nq, ld int) {
	a, kn := &w.arena[worker], w.kernel
	d, rb, stride := in.Dim, kv.dtype.Size()*in.Dim, simd.Stride(in.Dim)
	nq = in.QHeads / in.Heads * in.QWindow
	nq4 := (nq + 3) &^ 3
	ld = (kv.n + attendRows - 1) / attendRows * attendRows
	scale := float32(1 / math.Sqrt(float64(d)))
	first := in.firstQuery(plane)
	a.queries = grow(a.queries, nq4*stride)
	clear(a.queries)
	for q := range nq {
		row := a.queries[q*stride : q*stride+d]
		widen(kn, row, in.Q[(first+q*d)*in.QDType.Size():], in.QDType, 1)
		kn.Scale(row, scale)
	}
	a.rows = grow(a.rows, attendRows*stride)
	clear(a.rows)
	a.logits = grow(a.logits, nq4*ld)
	clear(a.logits)
	for i := 0; i < kv.n; i += attendRows {
		for k := range min(attendRows, kv.n-i) {
			widen(kn, a.rows[k*stride:k*stride+d], kv.k[(i+k)*rb:], kv.dtype, kv.kscale)
		}
		kn.Dots(a.logits[i:], ld, a.queries, a.rows, nq4, attendRows, stride)
	}
	for q := range nq {
		logits := a.logits[q*ld : q*ld+kv.n]
		if kv.bias != nil {
			kn.Axpy(logits, kv.bias[:kv.n], 1)
		}
		softmax(kn, logits)
		clear(a.logits[q*ld+kv.n : (q+1)*ld]) // what fills up the last rows has no weight
	}
	return nq, ld
}

// firstQuery is the index in Q, in elements, of the first query of a plane's query heads.
func (in *Input) firstQuery(plane int) int {
	per := in.QHeads / in.Heads
	layer, head := plane/in.Heads, plane%in.Heads
	return (layer*in.QHeads + head*per) * in.QWindow * in.Dim
}

// attendPlane runs every query of the plane's query heads over its keys and values.
func (w *work) attendPlane(worker int, in *Input, kv keys, plane int, out *Attention) {
	nq, ld := w.weights(worker, in, kv, plane)
	a, kn := &w.arena[worker], w.kernel
	d, rb, first := in.Dim, kv.dtype.Size()*in.Dim, in.firstQuery(plane)
	o := out.Out[first : first+nq*d]
	clear(o)
	stride := simd.Stride(d)
	for i := 0; i < kv.n; i += attendRows {
		for k := range min(attendRows, kv.n-i) {
			widen(kn, a.rows[k*stride:k*stride+d], kv.v[(i+k)*rb:], kv.dtype, kv.vscale)
		}
		for q := range nq {
			for k := 0; k < attendRows; k += 4 {
				p := (*[4]float32)(a.logits[q*ld+i+k:])
				if p[0]+p[1]+p[2]+p[3] > 1e-12 {
					kn.Axpy4(o[q*d:q*d+d], a.rows[k*stride:], stride, p)
				}
			}
		}
	}
}

func softmax(kn *simd.Kernels, x []float32) {
	top := x[0]
	for _, v := range x {
		top = max(top, v)
	}
	kn.Scale(x, 1/kn.ExpSum(x, top))
}

// Compare fills f with the relative error of got against want, per layer and query head.
func (f *Fidelity) Compare(want, got *Attention) {
	f.Heads = grow(f.Heads, want.Layers*want.Heads)
	f.Error, f.Worst, f.WorstLayer, f.WorstHead = 0, -1, 0, 0
	size := want.Window * want.Dim
	for i := range f.Heads {
		diff, full := 0.0, 0.0
		g := group(got.Out, i, size)
		for k, x := range group(want.Out, i, size) {
			e := float64(g[k]) - float64(x)
			diff += e * e
			full += float64(x) * float64(x)
		}
		e := 0.0
		switch {
		case full > 0:
			e = math.Sqrt(diff / full)
		case diff > 0:
			e = 1
		}
		f.Heads[i] = e
		f.Error += e / float64(len(f.Heads))
		if e > f.Worst {
			f.Worst, f.WorstLayer, f.WorstHead = e, i/want.Heads, i%want.Heads
		}
	}
}
