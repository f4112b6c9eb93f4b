package eval

import (
	"slices"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// Cache is what a model keeps of a context: the input of a [Method]. It is read only.
//
// Keys (after RoPE) and values are there twice: as an engine holds them, K and V in DType; and widened, as Full.
type Cache struct {
	Model                      string // its name
	Layers, Heads, Tokens, Dim int
	DType                      compress.DType
	K, V                       []byte // [Layers, Heads, Tokens, Dim]
	Full                       Cores
	Positions                  []int32 // [Tokens]
	Boundary                   []byte  // [Tokens], non-zero where a token ends a clause
	Rope                       compress.Rope
	Last                       Queries   // the context's last queries
	Sample                     Queries   // queries from all over the context, as an adapter sends them
	Asked                      []int32   // their positions, rising
	Mass                       []float32 // [Layers, Heads, Tokens], attention that each token got from the context; or nil
}

// Queries are queries after RoPE of some consecutive tokens: X is [Layers, Heads, Window, Dim]. Heads are query heads.
type Queries struct {
	Layers, Heads, Window, Dim int
	X                          []float32
}

// Of is the queries of one head, [Window, Dim].
func (q *Queries) Of(layer, head int) []float32 {
	n := q.Window * q.Dim
	o := (layer*q.Heads + head) * n
	return q.X[o : o+n]
}

// Plane is what one KV head of one layer keeps. K and V are [N, Stride(Dim)], each row padded with zeros.
type Plane struct {
	N    int
	K, V []float32
	Bias []float32 // [N], added to the scaled logits; nil: zeros
	At   []float32 // [N], positions that the keys are rotated to
}

// Cores are the planes of a cache, [Layers, Heads].
type Cores struct {
	Layers, Heads, Dim int
	Planes             []Plane
	ElementBits        int // of a key or value as it would be stored
	Scaled             bool
	RowBytes, Fixed    int // more bytes for each core, and for each plane
}

// Stride is the length of a row of dim floats in a [Plane].
func Stride(dim int) int { return simd.Stride(dim) }

// Reset gives c the shape of cache and empty planes. The memory of the planes is reused.
func (c *Cores) Reset(cache *Cache) {
	c.Layers, c.Heads, c.Dim = cache.Layers, cache.Heads, cache.Dim
	c.ElementBits, c.Scaled, c.RowBytes, c.Fixed = 8*cache.DType.Size(), false, 0, 0
	c.Planes = slices.Grow(c.Planes[:0], c.Layers*c.Heads)[:c.Layers*c.Heads]
	for i := range c.Planes {
		p := &c.Planes[i]
		p.N, p.K, p.V, p.Bias, p.At = 0, p.K[:0], p.V[:0], nil, p.At[:0]
	}
}

// Kept is the number of cores divided by the number of tokens, over all layers and heads.
func (c *Cores) Kept(tokens int) float64 {
	n := 0
	for i := range c.Planes {
		n += c.Planes[i].N
	}
	return float64(n) / float64(tokens*len(c.Planes))
}

// Bytes is the size of keys, values, biases (4 bytes a core where there are any) and scales (4 bytes each for the keys and
// the values of a head, or RowBytes and Fixed).
func (c *Cores) Bytes() int {
	n := 0
	for i := range c.Planes {
		p := &c.Planes[i]
		n += p.N*(2*c.Dim*c.ElementBits/8+c.RowBytes) + c.Fixed
		if p.Bias != nil {
			n += 4 * p.N
		}
		if c.Scaled {
			n += 8
		}
	}
	return n
}

// Plane is the plane of a layer and a KV head.
func (c *Cores) Plane(layer, head int) *Plane { return &c.Planes[layer*c.Heads+head] }

// key and value are row i.
func (p *Plane) key(i, dim int) []float32   { return p.K[i*Stride(dim):][:dim] }
func (p *Plane) value(i, dim int) []float32 { return p.V[i*Stride(dim):][:dim] }

// Keep appends token i of the plane of as it is.
func (p *Plane) Keep(of *Plane, i, dim int) {
	s := Stride(dim)
	p.K = append(p.K, of.K[i*s:(i+1)*s]...)
	p.V = append(p.V, of.V[i*s:(i+1)*s]...)
	p.At = append(p.At, float32(i))
	p.N++
}

// newCache makes an empty cache of the model's shape.
func (m *Model) newCache(tokens, start int) *Cache {
	c := &m.Config
	n := c.Layers * c.Heads * tokens
	out := &Cache{Model: c.Name, Layers: c.Layers, Heads: c.Heads, Tokens: tokens, Dim: c.HeadDim, DType: c.DType, Rope: c.Rope,
		K: make([]byte, n*c.HeadDim*c.DType.Size()), V: make([]byte, n*c.HeadDim*c.DType.Size()), Positions: make([]int32, tokens)}
	for i := range out.Positions {
		out.Positions[i] = int32(start + i)
	}
	out.Full.Reset(out)
	for i := range out.Full.Planes {
		p := &out.Full.Planes[i]
		p.N = tokens
		p.K, p.V = make([]float32, tokens*Stride(out.Dim)), make([]float32, tokens*Stride(out.Dim))
	}
	return out
}

// store rounds one layer's keys and values to the cache's element type.
func (c *Cache) store(kn *simd.Kernels, layer int, k, v *rows) {
	size := c.Dim * c.DType.Size()
	for h := range c.Heads {
		p := c.Full.Plane(layer, h)
		for i := range c.Tokens {
			o := ((layer*c.Heads+h)*c.Tokens + i) * size
			narrow(c.K[o:o+size], k.row(i)[h*c.Dim:(h+1)*c.Dim], c.DType)
			narrow(c.V[o:o+size], v.row(i)[h*c.Dim:(h+1)*c.Dim], c.DType)
			widen(kn, p.key(i, c.Dim), c.K[o:o+size], c.DType)
			widen(kn, p.value(i, c.Dim), c.V[o:o+size], c.DType)
		}
	}
}

// keep copies the queries of one layer that start at row first.
func (q *Queries) keep(layer int, from *rows, first int) {
	q.pick(layer, from, func(i int) int { return first + i })
}

// pick copies queries of one layer: query i from row at(i).
func (q *Queries) pick(layer int, from *rows, at func(i int) int) {
	for h := range q.Heads {
		dst := q.Of(layer, h)
		for i := range q.Window {
			copy(dst[i*q.Dim:(i+1)*q.Dim], from.row(at(i))[h*q.Dim:(h+1)*q.Dim])
		}
	}
}

// sampled are the positions of the queries that an adapter sends of a context: 48 strided over all but its end, and its last 16.
func sampled(tokens int) (at []int32) {
	const strided, last = 48, 16
	rest := max(tokens-last, 0)
	for i := range min(strided, rest) {
		at = append(at, int32((2*i+1)*rest/(2*min(strided, rest))))
	}
	for i := rest; i < tokens; i++ {
		at = append(at, int32(i))
	}
	return at
}
