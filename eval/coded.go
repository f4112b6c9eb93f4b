package eval

import (
	"context"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
	"github.com/semproxy/semproxy/transport/page/bits"
)

// coded writes keys and values in few bits and reads them back, as cores on the wire are with a policy's bits.
type coded struct {
	Method
	bits int
	rows bits.Coder
}

// exactFirst is how many first entries of a head stay as they are, as on the wire.
const exactFirst = 4

// Compress implements [Method].
func (m *coded) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	took, err := m.Method.Compress(ctx, c, ratio, out)
	if err != nil {
		return took, err
	}
	frequencies, err := frequencies32(c.Rope)
	if err != nil {
		return took, err
	}
	carrier := bits.Carrier{Frequencies: frequencies, Interleaved: c.Rope.Interleaved}
	m.rows.Dim, m.rows.Bits = c.Dim, m.bits
	turns := make([]bits.Turn, len(frequencies))
	mean, codes, narrowed := make([]float32, c.Dim), make([]byte, bits.RowBytes(c.Dim, m.bits)), make([]byte, c.Dim*c.DType.Size())
	for i := range out.Planes {
		p := &out.Planes[i]
		carrier.Fit(c.Dim, p.N, func(s int) ([]float32, []bits.Turn) {
			carrier.Turns(turns, p.At[s], false)
			return p.key(s, c.Dim), turns
		})
		for s := min(p.N, exactFirst); s < p.N; s++ {
			k, v := p.key(s, c.Dim), p.value(s, c.Dim)
			carrier.Turns(turns, p.At[s], true)
			carrier.Rotate(mean, turns)
			for d := range k {
				k[d] -= mean[d]
			}
			m.rows.Decode(k, codes, m.rows.Encode(codes, k))
			m.rows.Decode(v, codes, m.rows.Encode(codes, v))
			for d := range k {
				k[d] += mean[d]
			}
			for _, x := range [][]float32{k, v} {
				narrow(narrowed, x, c.DType)
				widen(simd.Best(), x, narrowed, c.DType)
			}
		}
	}
	out.ElementBits, out.Scaled, out.RowBytes, out.Fixed = m.bits, false, 4, 2*c.Dim+exactFirst*2*c.Dim*c.DType.Size()
	return took, nil
}

// frequencies32 are the rotation's as they are on the wire.
func frequencies32(r compress.Rope) ([]float32, error) {
	f, err := r.Frequencies()
	if err != nil {
		return nil, err
	}
	out := make([]float32, len(f))
	for i, x := range f {
		out[i] = float32(x)
	}
	return out, nil
}

// byLength hides the delimiters, so that chunks are cut by length alone: what delimiters are worth.
type byLength struct{ Method }

// Compress implements [Method].
func (m byLength) Compress(ctx context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	plain := *c
	plain.Boundary = nil
	return m.Method.Compress(ctx, &plain, ratio, out)
}
