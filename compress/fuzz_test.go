package compress_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/semproxy/semproxy/compress"
)

// choices turns the bytes of a fuzzer into decisions; when they run out every decision is 0.
type choices struct{ left []byte }

func (c *choices) below(n int) int {
	if len(c.left) == 0 {
		return 0
	}
	x := int(c.left[0])
	c.left = c.left[1:]
	if n > 256 && len(c.left) > 0 {
		x |= int(c.left[0]) << 8
		c.left = c.left[1:]
	}
	return x % n
}

func (c *choices) flag() bool { return c.below(2) == 1 }

func (c *choices) share() float64 { return float64(c.below(256)) / 255 }

func (c *choices) rope(dim int) compress.Rope {
	types := []string{"default", "none", "linear", "ntk", "yarn", "llama3"}
	return compress.Rope{Type: types[c.below(len(types))], Theta: 10000, Dim: 2 * c.below(dim/2+1), Interleaved: c.flag(),
		Factor: 4, LowFreq: 1, HighFreq: 4, OriginalMaxTok: 64}
}

func (c *choices) page() *compress.Input {
	in := &compress.Input{DType: compress.DType(c.below(5)), Layers: 1 + c.below(2), Heads: 1 + c.below(3),
		Tokens: 1 + c.below(400), Dim: 1 + c.below(70)}
	in.Rope = c.rope(in.Dim)
	n := in.Layers * in.Heads
	if in.DType.FP8() {
		in.KScale, in.VScale = make([]float32, n), make([]float32, n)
		for i := range n {
			in.KScale[i], in.VScale[i] = float32(0.1+c.share()), float32(0.1+c.share())
		}
	}
	at, step := int32(c.below(1000)), 1+c.below(3)
	for range in.Tokens {
		in.Positions = append(in.Positions, at)
		at += int32(1 + c.below(step))
	}
	if c.flag() {
		in.QDType, in.QHeads, in.QWindow = compress.DType(c.below(3)), in.Heads*(1+c.below(2)), 1+c.below(4)
	}
	boundary, protect := c.flag(), c.flag()
	c.elements(in)
	r := c.random()
	for range in.Tokens {
		if boundary {
			in.Boundary = append(in.Boundary, byte(r.IntN(9)/8))
		}
		if protect {
			in.Protect = append(in.Protect, byte(r.IntN(20)/19))
		}
	}
	return in
}

// elements fills K, V and Q: with numbers as a model's, with any bits at all (NaN and infinities too), or with what is left of
// the fuzzer's bytes over and over, so that keys are equal or zero.
func (c *choices) elements(in *compress.Input) {
	kind, r := c.below(3), c.random()
	fill := func(n int, t compress.DType) []byte {
		switch {
		case kind == 0:
			return appendRow(nil, gauss(r, n), t)
		case kind == 1 || len(c.left) == 0:
			b := make([]byte, n*t.Size())
			for i := range b {
				b[i] = byte(r.IntN(256))
			}
			return b
		}
		b := make([]byte, n*t.Size())
		for i := range b {
			b[i] = c.left[i%len(c.left)]
		}
		return b
	}
	n := in.Layers * in.Heads * in.Tokens * in.Dim
	in.K, in.V = fill(n, in.DType), fill(n, in.DType)
	if in.QHeads > 0 {
		in.Q = fill(in.Layers*in.QHeads*in.QWindow*in.Dim, in.QDType)
	}
}

func (c *choices) random() *rand.Rand { return rand.New(rand.NewPCG(uint64(c.below(1<<16)), 1)) }

func (c *choices) options(in *compress.Input) compress.Options {
	o := compress.Options{Ratio: c.share(), Budget: compress.Budget(c.below(3)), Threshold: 2*c.share() - 1, Shared: c.flag(),
		Exact: c.share(), Keep: compress.Keep(c.below(3)), Rest: compress.Rest(c.below(3)), Regular: c.flag(),
		FP8: compress.DType(c.below(5)), ChunkMin: 1 + c.below(130), Sinks: c.below(8), Recent: c.below(40),
		Rotated: c.flag(), ByPosition: c.flag(), PlainMean: c.flag()}
	o.ChunkMax = o.ChunkMin + c.below(150)
	if refused := c.below(8) == 1; !refused { // mostly, what can be done
		if o.Rest != compress.Cluster {
			o.Budget = compress.Equal
		}
		if in.Q == nil {
			o.Keep %= compress.Attended
		}
	}
	if o.Rest == compress.Cluster && o.Budget == compress.Adaptive && c.flag() {
		o.Keep, o.Recency, o.Distinct, o.Across = compress.Outliers, float64(c.below(200)), c.flag(), c.flag()
		if c.flag() {
			o.Budget = compress.Layered
		}
		for range in.Layers * in.Heads * c.below(2) {
			o.HeadWeights = append(o.HeadWeights, (1+float64(c.below(255)))/64)
		}
	}
	for range c.below(3) {
		from := c.below(in.Tokens + 1)
		o.Spans = append(o.Spans, compress.Span{From: from, To: from + c.below(50)})
	}
	return o
}

// Whatever the page and the options: they are refused with a reason, or the result is one that check accepts.
func FuzzCompress(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 24 {
		seed := make([]byte, 8*n)
		for i := range seed {
			seed[i] = byte(r.IntN(256))
		}
		f.Add(seed[:4*n], seed[4*n:])
	}
	f.Fuzz(func(t *testing.T, pageBytes, optionBytes []byte) {
		in := (&choices{pageBytes}).page()
		opt := (&choices{optionBytes}).options(in)
		c := compress.New(2)
		defer c.Close()
		var res compress.Result
		for range 2 { // the second page finds the memory of the first
			err := c.Compress(context.Background(), in, &opt, &res)
			var refused *compress.InputError
			if errors.As(err, &refused) && refused.Code() != "" {
				return
			}
			if err != nil {
				t.Fatalf("%v, want a refusal with a code", err)
			}
			check(t, in, &opt, &res)
		}
	})
}
