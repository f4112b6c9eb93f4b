package eval

import (
	"context"
	"math"
	"time"

	"github.com/semproxy/semproxy/compress"
)

// stride merges runs of neighbours, all of about the same length, between the first and the last tokens.
type stride struct{ sinks, recent int }

func newStride(p *params) (Method, error) {
	opt := compress.Semantic()
	s := &stride{sinks: opt.Sinks, recent: opt.Recent}
	p.count("sinks", &s.sinks)
	p.count("recent", &s.recent)
	if s.sinks < 0 || s.recent < 0 {
		return nil, badMethod("sinks and recent must not be negative, got %d and %d", s.sinks, s.recent)
	}
	return s, nil
}

// Compress implements [Method].
func (s *stride) Compress(_ context.Context, c *Cache, ratio float64, out *Cores) (time.Duration, error) {
	sinks := min(s.sinks, c.Tokens)
	end := max(c.Tokens-s.recent, sinks)
	middle := end - sinks
	groups := int(ratio*float64(c.Tokens)+1e-9) - (c.Tokens - middle)
	groups = min(max(groups, 1), middle)
	for i := range out.Planes {
		pre, err := unrotated(c, i)
		if err != nil {
			return 0, err
		}
		p, of := &out.Planes[i], &c.Full.Planes[i]
		for t := range sinks {
			p.Keep(of, t, c.Dim)
		}
		p.Bias = make([]float32, sinks, sinks+groups+c.Tokens-end)
		for g := range groups {
			lo, hi := sinks+g*middle/groups, sinks+(g+1)*middle/groups
			p.Keep(of, lo, c.Dim)
			if err := mergeRows(c, p, of, pre, lo, hi); err != nil {
				return 0, err
			}
			p.Bias = append(p.Bias, float32(math.Log(float64(hi-lo))))
		}
		for t := end; t < c.Tokens; t++ {
			p.Keep(of, t, c.Dim)
			p.Bias = append(p.Bias, 0)
		}
	}
	return 0, nil
}

// mergeRows sets the last row of p to the merge of tokens [lo, hi): the mean value, and the un-rotated keys' mean direction
// at their mean length, rotated to their mean position.
func mergeRows(c *Cache, p, of *Plane, pre []float32, lo, hi int) error {
	if hi-lo == 1 {
		return nil
	}
	k, v := p.key(p.N-1, c.Dim), p.value(p.N-1, c.Dim)
	clear(k)
	clear(v)
	n := float32(hi - lo)
	position, length := 0.0, 0.0
	for t := lo; t < hi; t++ {
		row := pre[t*c.Dim : (t+1)*c.Dim]
		for i, x := range of.value(t, c.Dim) {
			v[i] += x / n
			k[i] += row[i]
		}
		position += float64(c.Positions[t]) / float64(n)
		length += norm(row) / float64(n)
	}
	p.At[p.N-1] = float32(position)
	scale := float32(length / (norm(k) + 1e-9))
	for i := range k {
		k[i] *= scale
	}
	freq, err := c.Rope.Frequencies()
	if err != nil {
		return err
	}
	turn(k, position, freq)
	return nil
}

// unrotated is the keys of a plane before RoPE, [Tokens, Dim].
func unrotated(c *Cache, plane int) ([]float32, error) {
	freq, err := c.Rope.Frequencies()
	if err != nil {
		return nil, err
	}
	out := make([]float32, c.Tokens*c.Dim)
	for t := range c.Tokens {
		row := out[t*c.Dim : (t+1)*c.Dim]
		copy(row, c.Full.Planes[plane].key(t, c.Dim))
		turn(row, -float64(c.Positions[t]), freq)
	}
	return out, nil
}

// turn rotates a key by a position, pairs being half a rotary width apart.
func turn(x []float32, position float64, freq []float64) {
	half := len(freq)
	for i, w := range freq {
		sin, cos := math.Sincos(position * w)
		s, c := float32(sin), float32(cos)
		u, v := x[i], x[half+i]
		x[i], x[half+i] = u*c-v*s, v*c+u*s
	}
}

func norm(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}
