package compress

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// Attention of some queries over the keys and values of one head goes by blocks of keys, with every query in a lane of its own: keys
// times queries, the exponential under the largest logit so far, and those weights times the values. When a block raises a
// query's largest logit, what was summed up before is scaled down (FlashAttention's recurrence), so that a block never leaves
// the caches.

// askBlock is how many keys a block has: a multiple of 8.
const askBlock = 128

// What is to be known besides the outputs.
type asking uint8

const (
	outputsOnly asking = iota
	middle             // the largest logit of each query on a token of the middle
	looksOnly          // what looks needs, and no outputs
	withLooks          // what looks needs, and the lengths of the values
	allWeights         // the weights
	logitsOnly         // the logits in place of the weights, and no outputs
)

// asker is one worker's memory for attention.
type asker struct {
	kernel  *simd.Kernels
	queries []float32 // [queries rounded up to 4, stride]
	rows    []float32 // of one block of keys or values
	got     answers
}

// answers is what the queries got: see asker.ask.
type answers struct {
	n, keys, lanes int       // queries, keys, and queries rounded up
	depth          int       // of a key; a bias is one more dimension, which is one for every query
	held           int       // blocks whose weights are kept: all, or one at a time
	asked          []float32 // [dim, lanes], the queries
	weights        []float32 // [held, askBlock, lanes], exp(logit - top of the key's block)
	tops           []float32 // [blocks, lanes], the largest logit up to each block; the last is the largest of all
	sum, squares   []float32 // [lanes], of the weights, under the last top
	total, both    []float64 // [lanes], the same as they grow
	middle         []float32 // [lanes], the largest logit on a token of the middle
	lengths        []float32 // [keys], of the values
	out            []float32 // [lanes, wide], the values under the weights, not yet divided by their sum
	by, none       []float32 // [lanes], scratch
	part           []float32 // [askBlock], scratch
}

// ask lets nq scaled queries, [nq rounded up to 4, stride], attend to the entries. The answers hold until the asker asks again.
func (a *asker) ask(queries []float32, nq int, kv entries, d int, what asking) *answers {
	x, kn := &a.got, a.kernel
	wide := simd.Wide(d)
	x.n, x.keys, x.lanes, x.depth = nq, kv.n, simd.Wide(nq), d
	if kv.bias != nil {
		x.depth++
	}
	x.transpose(queries, simd.Stride(d), d)
	blocks := (kv.n + askBlock - 1) / askBlock
	x.tops = grow(x.tops, blocks*x.lanes)
	x.sum, x.squares, x.middle = grow(x.sum, x.lanes), grow(x.squares, x.lanes), grow(x.middle, x.lanes)
	x.total, x.both = grow(x.total, x.lanes), grow(x.both, x.lanes)
	clear(x.total)
	clear(x.both)
	for i := range x.middle {
		x.middle[i] = -math.MaxFloat32
	}
	x.by, x.part, x.none = grow(x.by, x.lanes), grow(x.part, askBlock), grow(x.none, x.lanes)
	x.out = grow(x.out, x.lanes*wide)
	x.held = 1
	if what >= allWeights || what >= looksOnly && kv.n*x.lanes <= maxWeights {
		x.held = blocks
	}
	x.weights = grow(x.weights, x.held*askBlock*x.lanes)
	if what == withLooks {
		x.lengths = grow(x.lengths, blocks*askBlock)
	}
	a.rows = grow(a.rows, askBlock*max(wide, simd.Stride(x.depth)))
	for b := range blocks {
		from := b * askBlock
		n := min(askBlock, kv.n-from)
		weights := a.logits(kv, d, b)
		if what == logitsOnly {
			continue
		}
		if lo, hi := max(lookFirst-from, 0), min(kv.n-lookLast-from, n); what == middle && lo < hi {
			kn.MaxRows(x.middle, weights[lo*x.lanes:hi*x.lanes])
		}
		top, times := group(x.tops, b, x.lanes), kn.MulAdd
		if b == 0 {
			copy(top, weights[:x.lanes])
			times = kn.Mul
		} else {
			copy(top, group(x.tops, b-1, x.lanes))
		}
		kn.MaxRows(top, weights)
		if b > 0 {
			x.lower(kn, group(x.tops, b-1, x.lanes), top, wide)
		}
		clear(x.sum)
		clear(x.squares)
		kn.ExpRows(weights, top, x.sum, x.squares)
		for q := range x.total {
			x.total[q] += float64(x.sum[q])
			x.both[q] += float64(x.squares[q])
		}
		if what == looksOnly {
			continue
		}
		if wide > d {
			clear(a.rows)
		}
		widenRows(kn, a.rows, wide, kv.v, kv.dtype, kv.vscale, d, from, n)
		if what == withLooks {
			clear(a.rows[n*wide : (n+3)&^3*wide])
			kn.RowDots(x.lengths[from:from+(n+3)&^3], a.rows, wide, a.rows, wide, wide)
		}
		times(x.out, wide, weights, 1, x.lanes, a.rows, wide, x.lanes, n, wide)
	}
	for q, sum := range x.total { // added up in float64: a price is a whole number, which rounding can tip
		x.sum[q], x.squares[q] = float32(sum), float32(x.both[q])
	}
	if what == withLooks {
		for i, squares := range x.lengths[:kv.n] {
			x.lengths[i] = float32(math.Sqrt(float64(squares)))
		}
	}
	return x
}

// logits are the queries' products with the keys of a block, and its biases: [keys, lanes], in the block's place of weights.
func (a *asker) logits(kv entries, d, b int) []float32 {
	x, kn := &a.got, a.kernel
	from := b * askBlock
	n, stride := min(askBlock, kv.n-from), d
	if kv.bias != nil {
		stride = simd.Stride(x.depth)
	}
	widenRows(kn, a.rows, stride, kv.k, kv.dtype, kv.kscale, d, from, n)
	if kv.bias != nil {
		for i, bias := range kv.bias[from : from+n] {
			a.rows[i*stride+d] = bias
		}
	}
	dst := x.weights[b%x.held*askBlock*x.lanes:]
	kn.Mul(dst, x.lanes, a.rows, stride, 1, x.asked, x.lanes, (n+simd.MulRows-1)&^(simd.MulRows-1), x.depth, x.lanes)
	return dst[:n*x.lanes]
}

// transpose fills asked with n rows of queries; what is behind d is one.
func (x *answers) transpose(queries []float32, stride, d int) {
	x.asked = grow(x.asked, x.depth*x.lanes)
	clear(x.asked)
	for q := range x.n {
		for i, v := range queries[q*stride : q*stride+d] {
			x.asked[i*x.lanes+q] = v
		}
	}
	for i := d * x.lanes; i < len(x.asked); i++ {
		x.asked[i] = 1
	}
}

// lower brings what was summed up under an old top under a new one.
func (x *answers) lower(kn *simd.Kernels, old, top []float32, wide int) {
	for q, t := range top[:x.n] {
		if t > old[q] {
			by := math.Exp(float64(old[q]) - float64(t))
			x.total[q] *= by
			x.both[q] *= by * by
			kn.Scale(x.out[q*wide:(q+1)*wide], float32(by))
		}
	}
}

// share fills x.by with what turns block b's weights into shares: each query's weights then sum to one.
func (x *answers) share(b int) []float32 {
	top, last := group(x.tops, b, x.lanes), x.last()
	clear(x.by)
	for q := range x.n {
		x.by[q] = 1 / x.sum[q]
		if top[q] != last[q] {
			x.by[q] *= float32(math.Exp(float64(top[q] - last[q])))
		}
	}
	return x.by
}

func (x *answers) last() []float32 { return x.tops[len(x.tops)-x.lanes:] }

// outputs writes to dst, [queries, d], what the queries got.
func (x *answers) outputs(dst []float32, d int) {
	wide := simd.Wide(d)
	for q := range x.n {
		by := 1 / x.sum[q]
		for i, v := range x.out[q*wide : q*wide+d] {
			dst[q*d+i] = v * by
		}
	}
}

// looks adds to dst, [keys], how much the queries that count look at each key. What was asked with them is at hand still.
func (a *asker) looks(kv entries, d int, dst []float32, counts func(query int) bool) {
	x, kn := &a.got, a.kernel
	for b := 0; b*askBlock < x.keys; b++ {
		from := b * askBlock
		n := min(askBlock, x.keys-from)
		var weights, by []float32
		if again := x.held*askBlock < x.keys; again { // they were too many to keep
			weights = a.logits(kv, d, b)
			kn.ExpRows(weights, x.last(), x.none, x.none)
			by = x.share((x.keys - 1) / askBlock)
		} else {
			weights, by = x.weights[from*x.lanes:][:n*x.lanes], x.share(b)
		}
		for q := range x.n {
			if counts != nil && !counts(q) {
				by[q] = 0
			}
		}
		part := x.part[:(n+3)&^3]
		kn.RowDots(part, weights[:cap(weights)], x.lanes, by, 0, x.lanes)
		for i, v := range part[:n] {
			dst[from+i] += v
		}
	}
}

// What counts as the first and last tokens of a page, which get attention whatever they say.
const lookFirst, lookLast = 4, 32

// lookups writes to dst the largest weight of each query on a token of the middle.
func (x *answers) lookups(dst []float32) {
	for q, top := range x.last()[:x.n] {
		dst[q] = 0
		if lookFirst < x.keys-lookLast {
			dst[q] = float32(math.Exp(float64(x.middle[q]-top))) / x.sum[q]
		}
	}
}

// widenRows widens n rows of d elements, from one on, into rows of ld. What is behind d stays.
func widenRows(kn *simd.Kernels, dst []float32, ld int, src []byte, t DType, scale float32, d, from, n int) {
	size := d * t.Size()
	src = src[from*size : (from+n)*size]
	if ld == d {
		widen(kn, dst[:n*d], src, t, scale)
		return
	}
	for i := range n {
		widen(kn, dst[i*ld:i*ld+d], src[i*size:], t, scale)
	}
}
