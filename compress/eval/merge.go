package eval

import (
	"context"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/internal/simd"
)

// merge is compress.Compressor with some options.
type merge struct {
	comp *compress.Compressor
	opt  compress.Options
	res  compress.Result
}

func newMerge(p *params, opt compress.Options) (Method, error) {
	if v, ok := p.take("budget"); ok {
		switch v {
		case "equal":
			opt.Budget = compress.Equal
		case "adaptive":
			opt.Budget = compress.Adaptive
		default:
			return nil, badMethod("budget must be equal or adaptive, got %q", v)
		}
	}
	p.flag("shared", &opt.Shared)
	p.number("exact", &opt.Exact)
	p.count("min", &opt.ChunkMin)
	p.count("max", &opt.ChunkMax)
	p.count("sinks", &opt.Sinks)
	p.count("recent", &opt.Recent)
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
	in := compress.Input{DType: c.DType, Layers: c.Layers, Heads: c.Heads, Tokens: c.Tokens, Dim: c.Dim, K: c.K, V: c.V,
		Positions: c.Positions, Boundary: c.Boundary, Rope: c.Rope}
	if l := &c.Last; l.Window > 0 {
		in.Q, in.QDType, in.QHeads, in.QWindow = make([]byte, 4*len(l.X)), compress.F32, l.Heads, l.Window
		narrow(in.Q, l.X, compress.F32)
	}
	m.opt.Ratio = ratio
	return m.comp.Compress(ctx, &in, &m.opt, &m.res)
}

// Compress implements [Method].
func (m *merge) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	if err := m.run(ctx, c, ratio); err != nil {
		return 0, err
	}
	r, kn := &m.res, simd.Best()
	size, stride := c.Dim*c.DType.Size(), Stride(c.Dim)
	for i := range out.Planes {
		p := &out.Planes[i]
		p.N = int(r.Slots[i])
		p.K, p.V = zeroed(p.K, p.N*stride), zeroed(p.V, p.N*stride)
		p.Bias = append([]float32(nil), r.Bias[i*r.Cores:i*r.Cores+p.N]...)
		for s := range p.N {
			o := (i*r.Cores + s) * size
			widen(kn, p.key(s, c.Dim), r.K[o:o+size], c.DType)
			widen(kn, p.value(s, c.Dim), r.V[o:o+size], c.DType)
		}
	}
	return r.Elapsed, nil
}
