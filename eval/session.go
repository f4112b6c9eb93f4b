package eval

import (
	"math"
	"runtime"
)

// Session runs a model on one sequence at a time. It owns the buffers of the forward pass; use one per goroutine.
type Session struct {
	m       *Model
	scratch []scratch

	x, h, q, k, v, gate, up rows
	att, logits             rows
	cos, sin                []float32
}

// scratch is what one worker needs.
type scratch struct {
	weights             []float32
	keys, values        []float32
	queries, logit, out []float32
	limits              []int
	inverse             []float32
}

// NewSession makes a session that spreads each product over that many goroutines; 0 means one per processor.
func (m *Model) NewSession(workers int) *Session {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Session{m: m, scratch: make([]scratch, workers)}
}

// Want says what a prefill keeps beside keys and values.
type Want struct {
	Queries int  // of the last tokens
	Mass    bool // the attention that each token got, summed over queries and query heads
}

// Prefill runs the model on the tokens of a context, which starts at position 0, and returns its cache, rounded to the
// model's element type. Boundary is left nil.
func (s *Session) Prefill(ids []int32, want Want) (*Cache, error) {
	if len(ids) == 0 || want.Queries > len(ids) {
		return nil, badData("a context of %d tokens is too short", len(ids))
	}
	c := &s.m.Config
	cache := s.m.newCache(len(ids), 0)
	cache.Last = Queries{Layers: c.Layers, Heads: c.QHeads, Window: want.Queries, Dim: c.HeadDim,
		X: make([]float32, c.Layers*c.QHeads*want.Queries*c.HeadDim)}
	cache.Asked = sampled(len(ids))
	cache.Sample = Queries{Layers: c.Layers, Heads: c.QHeads, Window: len(cache.Asked), Dim: c.HeadDim,
		X: make([]float32, c.Layers*c.QHeads*len(cache.Asked)*c.HeadDim)}
	if want.Mass {
		cache.Mass = make([]float32, c.Layers*c.Heads*len(ids))
	}
	var note func(plane int, sc *scratch)
	if want.Mass {
		note = func(plane int, sc *scratch) { sc.sum(cache.Mass[plane*len(ids):][:len(ids)]) }
	}
	err := s.forward(ids, 0, nil, note, func(layer int) {
		cache.store(s.m.kernel, layer, &s.k, &s.v)
		cache.Last.keep(layer, &s.q, len(ids)-want.Queries)
		cache.Sample.pick(layer, &s.q, func(i int) int { return int(cache.Asked[i]) })
	})
	return cache, err
}

// Follow teacher-forces tokens that come after a context of start tokens, of which past is what is left: each sees past
// and the tokens of ids up to itself. Logits then gives the predictions. It returns the first queries of them, as many
// as asked for.
func (s *Session) Follow(ids []int32, start int, past *Cores, queries int) (*Queries, error) {
	c := &s.m.Config
	if len(ids) == 0 || queries > len(ids) {
		return nil, badData("a continuation of %d tokens is too short", len(ids))
	}
	q := &Queries{Layers: c.Layers, Heads: c.QHeads, Window: queries, Dim: c.HeadDim, X: make([]float32, c.Layers*c.QHeads*queries*c.HeadDim)}
	return q, s.forward(ids, start, past, nil, func(layer int) { q.keep(layer, &s.q, 0) })
}

// Logits predicts what follows each of the given tokens of the last call: [len(at), Stride(vocabulary)], valid until
// the next call.
func (s *Session) Logits(at []int) (logits []float32, stride int) {
	s.h.reset(len(at), s.m.Config.Hidden)
	for i, t := range at {
		s.rmsNorm(s.h.row(i), s.x.row(t), s.m.norm)
	}
	s.multiply(&s.logits, &s.h, &s.m.head)
	return s.logits.x, s.logits.stride
}

// Repeat forces tokens that come after the whole context of cache and says how much each token of the context is looked at by any
// of them: [Layers, Heads, Tokens], the largest weight. When they say the context again, that is what a model needs to recall
// it (KVzip).
func (s *Session) Repeat(ids []int32, cache *Cache) ([]float32, error) {
	most := make([]float32, cache.Layers*cache.Heads*cache.Tokens)
	note := func(plane int, sc *scratch) { sc.most(most[plane*cache.Tokens:][:cache.Tokens]) }
	return most, s.forward(ids, cache.Tokens, &cache.Full, note, func(int) {})
}

// forward leaves the residual stream in s.x. see is called with s.q, s.k (after RoPE) and s.v of each layer; note, unless it is nil,
// with the weights of some queries of each of its KV heads, from one goroutine a head.
func (s *Session) forward(ids []int32, start int, past *Cores, note func(plane int, sc *scratch), see func(layer int)) error {
	m, c := s.m, &s.m.Config
	if err := c.fits(start + len(ids)); err != nil {
		return err
	}
	s.x.reset(len(ids), c.Hidden)
	size := c.Hidden * m.embed.dtype.Size()
	for i, id := range ids {
		if id < 0 || int(id) >= c.Vocab {
			return badData("token %d has id %d, the vocabulary has %d", i, id, c.Vocab)
		}
		widen(m.kernel, s.x.row(i), m.embed.data[int(id)*size:(int(id)+1)*size], m.embed.dtype)
	}
	s.angles(start, len(ids))
	for i := range m.layers {
		l := &m.layers[i]
		s.norm(l.attnNorm)
		s.multiply(&s.q, &s.h, &l.q)
		s.multiply(&s.k, &s.h, &l.k)
		s.multiply(&s.v, &s.h, &l.v)
		s.rotate(&s.q, c.QHeads, l.qNorm)
		s.rotate(&s.k, c.Heads, l.kNorm)
		see(i)
		s.attention(i, past, note)
		s.multiply(&s.h, &s.att, &l.o)
		s.add(&s.h)
		s.norm(l.mlpNorm)
		s.multiply(&s.gate, &s.h, &l.gate)
		s.multiply(&s.up, &s.h, &l.up)
		for t := range s.gate.n {
			up := s.up.row(t)
			for j, g := range s.gate.row(t) {
				up[j] *= silu(g)
			}
		}
		s.multiply(&s.h, &s.up, &l.down)
		s.add(&s.h)
	}
	return nil
}

// silu is g / (1 + e^-g), with the exponential taken of a number that cannot overflow.
func silu(g float32) float32 {
	e := [1]float32{-max(g, -g)}
	expAll(e[:], 0)
	if g < 0 {
		return g * e[0] / (1 + e[0])
	}
	return g / (1 + e[0])
}

func (s *Session) add(y *rows) {
	for i, v := range y.x {
		s.x.x[i] += v
	}
}

func (s *Session) norm(weight []float32) {
	s.h.reset(s.x.n, s.x.dim)
	for i := range s.x.n {
		s.rmsNorm(s.h.row(i), s.x.row(i), weight)
	}
}

func (s *Session) rmsNorm(dst, src, weight []float32) {
	sum := 0.0
	for _, v := range src {
		sum += float64(v) * float64(v)
	}
	scale := float32(1 / math.Sqrt(sum/float64(len(src))+s.m.Config.Eps))
	for i, v := range src {
		dst[i] = v * scale * weight[i]
	}
}

// angles fills the cosines and sines of the positions from start on.
func (s *Session) angles(start, n int) {
	half := len(s.m.freq)
	s.cos, s.sin = grow(s.cos, n*half), grow(s.sin, n*half)
	for t := range n {
		for i, w := range s.m.freq {
			sin, cos := math.Sincos(float64(start+t) * w)
			s.cos[t*half+i], s.sin[t*half+i] = float32(cos*s.m.Config.RotaryScale), float32(sin*s.m.Config.RotaryScale)
		}
	}
}

// rotate norms (where the model does) and rotates every head of x in place, pairs being half a rotary width apart.
func (s *Session) rotate(x *rows, heads int, norm []float32) {
	d, half := s.m.Config.HeadDim, len(s.m.freq)
	for t := range x.n {
		cos, sin := s.cos[t*half:(t+1)*half], s.sin[t*half:(t+1)*half]
		for h := range heads {
			row := x.row(t)[h*d : (h+1)*d]
			if norm != nil {
				s.rmsNorm(row, row, norm)
			}
			lo, hi := row[:half], row[half:2*half]
			for i, c := range cos {
				u, v := lo[i], hi[i]
				lo[i], hi[i] = u*c-v*sin[i], v*c+u*sin[i]
			}
		}
	}
}
