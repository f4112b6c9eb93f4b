package eval

import (
	"math"

	"github.com/semproxy/semproxy/internal/simd"
)

// Attention works on blocks of so many keys and tiles of at most so many queries, so that a tile's logits stay in cache.
const keyBlock, queryTile = 128, 64

// attention sets s.att to the outputs of layer's queries over past and, causally, the new tokens.
func (s *Session) attention(layer int, past *Cores, note func(plane int, sc *scratch)) {
	c := &s.m.Config
	d, per, n := c.HeadDim, c.QHeads/c.Heads, s.q.n
	s.att.reset(n, c.QHeads*d)
	scale := float32(1 / math.Sqrt(float64(d)))
	s.parallel(c.Heads, func(worker, head int) {
		sc := &s.scratch[worker]
		var old *Plane
		seen := 0
		if past != nil {
			old = past.Plane(layer, head)
			seen = old.N
		}
		sc.load(old, &s.k, &s.v, head, d)
		step := max(queryTile/per, 1)
		for t := 0; t < n; t += step {
			to := min(t+step, n)
			sc.tile(per*(to-t), d)
			for g := range per {
				for i := t; i < to; i++ {
					r := g*(to-t) + i - t
					sc.query(r, s.q.row(i)[(head*per+g)*d:][:d], scale)
					sc.limits[r] = seen + i + 1
				}
			}
			sc.attend(s.m.kernel, old, d)
			for g := range per {
				for i := t; i < to; i++ {
					copy(s.att.row(i)[(head*per+g)*d:][:d], sc.output(g*(to-t)+i-t, d))
				}
			}
			if note != nil {
				note(layer*c.Heads+head, sc)
			}
		}
	})
}

// Attend computes the outputs of queries, which come after all of it, over cores alone: [Layers, Heads, Window, Dim].
func (s *Session) Attend(q *Queries, over *Cores) []float32 {
	d, per := q.Dim, q.Heads/over.Heads
	out := make([]float32, len(q.X))
	scale := float32(1 / math.Sqrt(float64(d)))
	s.parallel(len(over.Planes), func(worker, i int) {
		sc, p := &s.scratch[worker], &over.Planes[i]
		sc.load(p, nil, nil, 0, d)
		first := i * per * q.Window // planes and query heads go in the same order
		for r := 0; r < per*q.Window; r += queryTile {
			n := min(queryTile, per*q.Window-r)
			sc.tile(n, d)
			for k := range n {
				sc.query(k, q.X[(first+r+k)*d:][:d], scale)
				sc.limits[k] = p.N
			}
			sc.attend(s.m.kernel, p, d)
			for k := range n {
				copy(out[(first+r+k)*d:][:d], sc.output(k, d))
			}
		}
	})
	return out
}

// load lays out the keys that one head sees: past first, then its part of the new tokens. Keys are [n, stride] in blocks;
// values are transposed within each block, [blocks, dim, keyBlock], so that their weighted sum is a row of dot products.
func (sc *scratch) load(past *Plane, k, v *rows, head, d int) {
	n, fresh := 0, 0
	if past != nil {
		n = past.N
	}
	if k != nil {
		fresh = k.n
	}
	stride, d4 := Stride(d), up4(d)
	blocks := (n + fresh + keyBlock - 1) / keyBlock
	sc.keys = zeroed(sc.keys, blocks*keyBlock*stride)
	sc.values = zeroed(sc.values, blocks*d4*keyBlock)
	if n > 0 {
		copy(sc.keys, past.K[:n*stride])
	}
	put := func(i int, value []float32) {
		col := sc.values[i/keyBlock*d4*keyBlock+i%keyBlock:]
		for j, x := range value {
			col[j*keyBlock] = x
		}
	}
	for i := range n {
		put(i, past.V[i*stride:][:d])
	}
	for i := range fresh {
		copy(sc.keys[(n+i)*stride:][:d], k.row(i)[head*d:])
		put(n+i, v.row(i)[head*d:(head+1)*d])
	}
}

// tile makes room for n queries.
func (sc *scratch) tile(n, d int) {
	sc.queries = zeroed(sc.queries, up4(n)*Stride(d))
	sc.out = zeroed(sc.out, up4(n)*Stride(d))
	sc.limits, sc.inverse = grow(sc.limits, n), grow(sc.inverse, n)
}

func (sc *scratch) query(r int, x []float32, scale float32) {
	for i, v := range x {
		sc.queries[r*Stride(len(x))+i] = v * scale
	}
}

func (sc *scratch) output(r, d int) []float32 { return sc.out[r*Stride(d):][:d] }

// attend computes the tile's outputs; query r sees the first limits[r] keys.
func (sc *scratch) attend(kn *simd.Kernels, past *Plane, d int) {
	n := len(sc.limits)
	n4, stride, d4 := up4(n), Stride(d), up4(d)
	most := 0
	for _, l := range sc.limits {
		most = max(most, l)
	}
	blocks := (most + keyBlock - 1) / keyBlock
	size := n4 * keyBlock
	sc.logit = zeroed(sc.logit, blocks*size)
	for b := range blocks {
		kn.Dots(sc.logit[b*size:], keyBlock, sc.queries, sc.keys[b*keyBlock*stride:], n4, keyBlock, stride)
	}
	var bias []float32
	if past != nil {
		bias = past.Bias
	}
	for r, limit := range sc.limits {
		sc.softmax(r, limit, blocks, size, bias)
	}
	for b := range blocks {
		kn.Dots(sc.out, stride, sc.logit[b*size:], sc.values[b*d4*keyBlock:], n4, d4, keyBlock)
	}
	for r, inverse := range sc.inverse {
		out := sc.output(r, d)
		for i := range out {
			out[i] *= inverse
		}
	}
}

// softmax turns the logits of query r into weights, of which inverse[r] makes the sum 1, and clears those past its limit.
func (sc *scratch) softmax(r, limit, blocks, size int, bias []float32) {
	top := float32(math.Inf(-1))
	for b := range blocks {
		row := sc.logit[b*size+r*keyBlock:][:keyBlock]
		first := b * keyBlock
		row = row[:min(max(limit-first, 0), keyBlock)]
		if first < len(bias) {
			for i, x := range bias[first:min(len(bias), first+len(row))] {
				row[i] += x
			}
		}
		for _, x := range row {
			top = max(top, x)
		}
	}
	sum := float32(0)
	for b := range blocks {
		row := sc.logit[b*size+r*keyBlock:][:keyBlock]
		seen := min(max(limit-b*keyBlock, 0), keyBlock)
		sum += expAll(row[:seen], top)
		clear(row[seen:])
	}
	sc.inverse[r] = 1 / sum
}

// sum adds the weights of the tile's queries to mass.
func (sc *scratch) sum(mass []float32) {
	size := up4(len(sc.limits)) * keyBlock
	for r, limit := range sc.limits {
		for b := 0; b*keyBlock < limit; b++ {
			row := sc.logit[b*size+r*keyBlock:][:min(keyBlock, limit-b*keyBlock)]
			for i, p := range row {
				mass[b*keyBlock+i] += p * sc.inverse[r]
			}
		}
	}
}

// most raises dst to the largest weight of the tile's queries on each of the first len(dst) keys.
func (sc *scratch) most(dst []float32) {
	size := up4(len(sc.limits)) * keyBlock
	for r, limit := range sc.limits {
		for b := 0; b*keyBlock < min(limit, len(dst)); b++ {
			row := sc.logit[b*size+r*keyBlock:][:min(keyBlock, limit-b*keyBlock, len(dst)-b*keyBlock)]
			for i, p := range row {
				dst[b*keyBlock+i] = max(dst[b*keyBlock+i], p*sc.inverse[r])
			}
		}
	}
}

// The polynomial of 2^k * e^f, with f from -ln2/2 to ln2/2.
const (
	log2e  = 1 / math.Ln2
	exp2   = 1.0 / 2
	exp3   = 1.0 / 6
	exp4   = 1.0 / 24
	exp5   = 1.0 / 120
	exp6   = 1.0 / 720
	expMin = -124 // as a power of two: below, the result is as good as zero
)

// expAll sets every x to e^(x-top), where no x exceeds top, and returns their sum. The relative error is below
// 1e-7 * (3 + top-x).
func expAll(x []float32, top float32) float32 {
	sum := float32(0)
	for i, v := range x {
		z := max((v-top)*log2e, expMin)
		k := int32(z - 0.5)
		f := (z - float32(k)) * math.Ln2
		g := f * f
		p := (1 + f) + g*(exp2+f*exp3) + g*g*(exp4+f*exp5+g*exp6)
		e := math.Float32frombits(math.Float32bits(p) + uint32(k)<<23)
		x[i] = e
		sum += e
	}
	return sum
}
