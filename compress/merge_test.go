package compress_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/semproxy/semproxy/compress"
)

// The value and the position of a core are its members' means, in which each weighs as much as it is looked at.
func TestMembersOfACoreWeighAsTheyAreLookedAt(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	in := synthetic(1, 2, 300, 32, compress.F32)
	in.Q = nil // nothing is fitted
	in.Importance = make([]float32, 2*in.Tokens)
	for i := range in.Importance {
		in.Importance[i] = float32(1+i*i%17) / 8
	}
	opt := compress.Weighted()
	opt.Ratio = 0.25
	var res compress.Result
	if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
		t.Fatal(err)
	}
	values, cores := tensor{DType: "F32", data: in.V}.floats(), tensor{DType: "F32", data: res.V}.floats()
	merged := 0
	for plane := range in.Heads {
		for core := range int(res.Slots[plane]) {
			at := plane*res.Cores + core
			if res.Counts[at] == 1 {
				continue
			}
			merged++
			sum, position, value := 0.0, 0.0, make([]float64, in.Dim)
			for i, of := range res.Assign[plane*in.Tokens:][:in.Tokens] {
				if int(of) != core {
					continue
				}
				w := float64(in.Importance[plane*in.Tokens+i])
				sum += w
				position += w * float64(in.Positions[i])
				for j := range value {
					value[j] += w * float64(values[(plane*in.Tokens+i)*in.Dim+j])
				}
			}
			if got := float64(res.Positions[at]); math.Abs(got-position/sum) > 1e-3 {
				t.Errorf("head %d core %d: position %v, want %v", plane, core, got, position/sum)
			}
			for j, x := range value {
				if got := float64(cores[at*in.Dim+j]); math.Abs(got-x/sum) > 1e-4 {
					t.Fatalf("head %d core %d: value %v, want %v", plane, core, got, x/sum)
				}
			}
		}
	}
	if merged < 10 {
		t.Errorf("%d cores are merged, want enough to see", merged)
	}
}

// A query that taught a core gives it nearly the logit that its members have together; the mean of their keys falls short of it.
func TestCoresGetTheAttentionOfTheirMembers(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	for _, p := range pages(t) {
		lacks := func(opt compress.Options) float64 {
			opt.Ratio = 0.25
			var res compress.Result
			var probes compress.Probes
			taught, err := probes.Teachers(&p.in)
			if err := errors.Join(err, c.Compress(context.Background(), &p.in, &opt, &res)); err != nil {
				t.Fatal(err)
			}
			return lack(&p, &taught, &res)
		}
		bare, folded := compress.Weighted(), compress.Weighted()
		bare.Fit, folded.Fold = false, true
		mean, fitted, both := lacks(bare), lacks(compress.Weighted()), lacks(folded)
		t.Logf("%s: logits of means are %.3f away, fitted ones %.3f, folded and fitted ones %.3f", p.name, mean, fitted, both)
		if fitted >= 0.8*mean || both >= mean {
			t.Errorf("%s: logits of fitted cores are %.3f away, of folded and fitted ones %.3f, of means %.3f", p.name, fitted, both, mean)
		}
	}
}

// lack is how far logits of merged cores are from those of their members together, on average over the queries of taught.
func lack(p *page, taught *compress.Input, res *compress.Result) float64 {
	keys, cores := tensor{DType: "F16", data: p.in.K}.floats(), tensor{DType: "F16", data: res.K}.floats()
	queries := tensor{DType: "F32", data: taught.Q}.floats()
	d, sum, n := p.in.Dim, 0.0, 0
	logit := func(q, k []float32) (x float64) {
		for i := range d {
			x += float64(q[i]) * float64(k[i])
		}
		return x / math.Sqrt(float64(d))
	}
	for plane := range p.in.Layers * p.in.Heads {
		for query := range taught.QWindow {
			q, mass := queries[(plane*taught.QWindow+query)*d:], make([]float64, res.Cores)
			for i, core := range res.Assign[plane*p.in.Tokens:][:p.in.Tokens] {
				mass[core] += math.Exp(logit(q, keys[(plane*p.in.Tokens+i)*d:]))
			}
			for core, m := range mass {
				if at := plane*res.Cores + core; res.Counts[at] > 1 {
					sum += math.Abs(math.Log(m) - logit(q, cores[at*d:]) - float64(res.Bias[at]))
					n++
				}
			}
		}
	}
	return sum / float64(n)
}
