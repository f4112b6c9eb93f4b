package gpu

import (
	"math"

	"github.com/semproxy/semproxy/compress"
)

// layout gives the cores their places, now that there are known to be width per head.
func (t *task) layout(out *arena) {
	p, j, x, b := t.plan, &t.dev, t.in, &t.bytes
	if p == nil {
		return
	}
	if t.again { // nothing is made of them
		t.width = 0
		return
	}
	most := int32(0)
	for _, m := range t.head[p.groups : 2*p.groups] {
		most = max(most, m)
	}
	planes := x.Layers * x.Heads
	t.width = p.sinks + int(most) + p.recent
	j.width = int32(t.width)
	n, dtype := planes*t.width, int32(x.DType)
	if o := t.out8(); o != 0 {
		j.outK8, b.k = out.take(n * x.Dim)
		j.outV8, b.v = out.take(n * x.Dim)
		dtype = int32(o)
	} else {
		j.outK, b.k = out.take(n * x.Dim * x.DType.Size())
		j.outV, b.v = out.take(n * x.Dim * x.DType.Size())
	}
	j.outCounts, b.counts = out.take(4 * n)
	j.outPositions, b.positions = out.take(4 * n)
	j.outAssign, b.assign = out.take(4 * planes * x.Tokens)
	j.outSimilarity, b.similarity = out.take(4 * planes)
	j.outFail, b.fail = out.take(4 * planes)
	j.outKScale, b.kscale = out.take(4 * planes)
	j.outVScale, b.vscale = out.take(4 * planes)
	t.rest.k, t.rest.v, t.rest.counts, t.rest.len = j.outK, j.outV, j.outCounts, int32(t.width)
	if t.folds() {
		t.rest.plain, t.own.plain = 1, 1
	}
	a := &t.own
	a.k, a.v, a.kscale, a.vscale = j.outK, j.outV, j.kscale, j.vscale
	if t.out8() != 0 {
		a.k, a.v, a.kscale, a.vscale = j.outK8, j.outV8, j.outKScale, j.outVScale
	}
	a.counts, a.dtype, a.len = j.outCounts, dtype, int32(t.width)
}

// result takes the cores out of the slot's memory.
func (t *task) result(out *compress.Result) {
	p, x, b := t.plan, t.in, &t.bytes
	planes := x.Layers * x.Heads
	out.Layers, out.Heads, out.Tokens, out.Dim, out.Cores = x.Layers, x.Heads, x.Tokens, x.Dim, t.width
	out.K, out.V = append(out.K[:0], b.k...), append(out.V[:0], b.v...)
	out.Counts = append(out.Counts[:0], view[int32](b.counts)...)
	out.Positions = append(out.Positions[:0], view[float32](b.positions)...)
	out.Assign = append(out.Assign[:0], view[int32](b.assign)...)
	out.KeySimilarity = append(out.KeySimilarity[:0], view[float32](b.similarity)...)
	out.ValueError = out.ValueError[:0]
	if x.Q == nil {
		out.ValueError = append(out.ValueError, view[float32](b.fail)...)
	}
	out.DType = x.DType
	out.KScale, out.VScale = append(out.KScale[:0], x.KScale...), append(out.VScale[:0], x.VScale...)
	if o := t.out8(); o != 0 {
		out.DType = o
		out.KScale = append(out.KScale[:0], view[float32](b.kscale)...)
		out.VScale = append(out.VScale[:0], view[float32](b.vscale)...)
	}
	out.Bias = out.Bias[:0]
	for _, n := range out.Counts {
		if t.folds() {
			n = min(n, 1)
		}
		out.Bias = append(out.Bias, logOf(n))
	}
	out.Slots, out.Thresholds, out.Dropped = out.Slots[:0], out.Thresholds[:0], out.Dropped[:0]
	for plane := range planes {
		g := plane / p.groupHeads
		out.Thresholds = append(out.Thresholds, t.head[g])
		out.Slots = append(out.Slots, int32(p.sinks+p.recent)+t.head[p.groups+g])
		out.Dropped = append(out.Dropped, 0)
	}
}

// logs of small counts.
var logs = func() (x [256]float32) {
	for i := range x {
		x[i] = float32(math.Log(float64(i)))
	}
	return x
}()

func logOf(n int32) float32 {
	if int(n) < len(logs) {
		return logs[n]
	}
	return float32(math.Log(float64(n)))
}

// attention takes outputs of the queries out of the slot's memory.
func (t *task) attention(out *compress.Attention, from []byte) {
	x := t.in
	out.Layers, out.Heads, out.Window, out.Dim = x.Layers, x.QHeads, x.QWindow, x.Dim
	out.Out = append(out.Out[:0], view[float32](from)...)
}
