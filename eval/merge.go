package eval

import (
	"context"
	"math"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/defaults"
	"github.com/semproxy/semproxy/internal/simd"
)

// merge is compress.Compressor with some options.
type merge struct {
	comp    *compress.Compressor
	opt     compress.Options
	res     compress.Result
	knows   bool // what is known of the model's heads weighs them, as it does in a sidecar
	weights []float64
}

// newWeighted is the default of a policy.
func newWeighted(p *params) (Method, error) {
	m, err := newMerge(p, compress.Weighted())
	if m, ok := m.(*merge); ok {
		m.knows = m.opt.HeadWeights == nil && m.opt.Budget == compress.Adaptive
	}
	return m, err
}

func newMerge(p *params, opt compress.Options) (Method, error) {
	p.choice("budget", map[string]func(){
		"equal":    func() { opt.Budget = compress.Equal },
		"adaptive": func() { opt.Budget = compress.Adaptive },
		"layered":  func() { opt.Budget = compress.Layered },
	})
	p.flag("shared", &opt.Shared)
	p.number("exact", &opt.Exact)
	p.count("min", &opt.ChunkMin)
	p.count("max", &opt.ChunkMax)
	p.count("sinks", &opt.Sinks)
	p.count("recent", &opt.Recent)
	p.choice("keep", map[string]func(){
		"outliers":  func() { opt.Keep = compress.Outliers },
		"smallkeys": func() { opt.Keep = compress.SmallKeys },
		"attended":  func() { opt.Keep = compress.Attended },
	})
	p.choice("rest", map[string]func(){
		"cluster": func() { opt.Rest = compress.Cluster },
		"stride":  func() { opt.Rest = compress.Stride },
		"drop":    func() { opt.Rest = compress.Drop },
	})
	p.flag("regular", &opt.Regular)
	p.flag("across", &opt.Across)
	p.flag("distinct", &opt.Distinct)
	p.flag("attention", &opt.Attention)
	p.flag("fit", &opt.Fit)
	p.flag("fold", &opt.Fold)
	p.number("recency", &opt.Recency)
	p.numbers("heads", &opt.HeadWeights)
	p.flag("rotated", &opt.Rotated)
	p.flag("byposition", &opt.ByPosition)
	p.flag("plainmean", &opt.PlainMean)
	if p.err == nil {
		p.err = opt.Check()
	}
	return &merge{comp: p.comp, opt: opt}, nil
}

// newEqual is the best variant with equal budgets and shared labels: regular shapes.
func newEqual(p *params) (Method, error) {
	opt := compress.Semantic()
	opt.Budget, opt.Shared, opt.Exact = compress.Equal, true, 0.5
	return newMerge(p, opt)
}

func (m *merge) run(ctx context.Context, c *Cache, ratio float64) error {
	in := c.input()
	l := &c.Sample
	if m.opt.Keep == compress.Attended {
		l = &c.Last
	} else {
		in.QPositions = c.Asked
	}
	ask(&in, l)
	m.opt.Ratio = ratio
	if m.knows {
		m.opt.HeadWeights = nil
		if m.weights = defaults.HeadWeights(m.weights[:0], c.Model, 0, c.Layers, c.Heads, ratio, false); len(m.weights) > 0 {
			m.opt.HeadWeights = m.weights
		}
	}
	return m.comp.Compress(ctx, &in, &m.opt, &m.res)
}

// ask gives a page queries.
func ask(in *compress.Input, q *Queries) {
	if q.Window > 0 {
		in.Q, in.QDType, in.QHeads, in.QWindow = make([]byte, 4*len(q.X)), compress.F32, q.Heads, q.Window
		narrow(in.Q, q.X, compress.F32)
	}
}

// input is the cache as a page, without queries.
func (c *Cache) input() compress.Input {
	return compress.Input{DType: c.DType, Layers: c.Layers, Heads: c.Heads, Tokens: c.Tokens, Dim: c.Dim, K: c.K, V: c.V,
		Positions: c.Positions, Boundary: c.Boundary, Rope: c.Rope}
}

// Compress implements [Method].
func (m *merge) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	if err := m.run(ctx, c, ratio); err != nil {
		return 0, err
	}
	r := &m.res
	size := c.Dim * r.DType.Size()
	out.ElementBits, out.Scaled = 8*r.DType.Size(), r.DType.FP8()
	for i := range out.Planes {
		p := &out.Planes[i]
		p.N = int(r.Slots[i])
		p.At = append(p.At[:0], r.Positions[i*r.Cores:i*r.Cores+p.N]...)
		p.K, p.V = zeroed(p.K, p.N*Stride(c.Dim)), zeroed(p.V, p.N*Stride(c.Dim))
		if m.opt.Rest != compress.Drop { // a token that stays alone has bias 0
			p.Bias = append([]float32(nil), r.Bias[i*r.Cores:i*r.Cores+p.N]...)
		}
		for s := range p.N {
			o := (i*r.Cores + s) * size
			widenScaled(p.key(s, c.Dim), r.K[o:o+size], r.DType, r.KScale, i)
			widenScaled(p.value(s, c.Dim), r.V[o:o+size], r.DType, r.VScale, i)
		}
	}
	return r.Elapsed, nil
}

// widenScaled converts elements that may be in FP8, with a scale per plane.
func widenScaled(dst []float32, src []byte, t compress.DType, scale []float32, plane int) {
	if !t.FP8() {
		widen(simd.Best(), dst, src, t)
		return
	}
	for i, code := range src {
		dst[i] = fromFP8(code, t) * scale[plane]
	}
}

// fromFP8 decodes a finite FP8 number by its definition (OCP).
func fromFP8(code byte, t compress.DType) float32 {
	mantissa, bias := 3, 7
	if t == compress.F8E5M2 {
		mantissa, bias = 2, 15
	}
	e, f := int(code&0x7f)>>mantissa, float64(int(code)&(1<<mantissa-1))
	if e == 0 {
		e = 1
	} else {
		f += float64(int(1) << mantissa)
	}
	x := math.Ldexp(f, e-bias-mantissa)
	if code >= 128 {
		x = -x
	}
	return float32(x)
}
