package compress_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/oracle"
)

// important gives a page an importance that differs by head and token and is nothing for some.
func important(p page) page {
	p.in.Importance = make([]float32, p.in.Layers*p.in.Heads*p.in.Tokens)
	for i := range p.in.Importance {
		p.in.Importance[i] = float32(i%7*(i%11)) / 60
	}
	return p
}

// strided says that a page's queries were asked all over it.
func strided(p page) page {
	p.in.QPositions = make([]int32, p.in.QWindow)
	for i := range p.in.QPositions {
		p.in.QPositions[i] = p.in.Positions[i*(p.in.Tokens-1)/max(p.in.QWindow-1, 1)]
	}
	return p
}

// inside is the page as a part of a longer sequence.
func inside(p page) page {
	p.in.Before, p.in.Behind = 3, 20
	return p
}

// lesson is a page and how it is compressed.
type lesson struct {
	page page
	opt  compress.Options
}

func (l *lesson) sinks() int { return max(l.opt.Sinks-l.page.in.Before, 0) }

// A page inside a sequence has neither its sinks nor its recent tokens: its budget is for what it has.
func TestEdgesAreThoseOfTheSequence(t *testing.T) {
	for _, x := range []struct{ before, behind, sinks, recent int }{{0, 0, 4, 16}, {1, 0, 3, 16}, {0, 10, 4, 6}, {256, 0, 0, 16}, {0, 16, 4, 0}, {9, 1 << 30, 0, 0}} {
		in := synthetic(1, 1, 100, 64, compress.F32)
		in.Before, in.Behind = x.before, x.behind
		opt := compress.Weighted()
		if sinks, recent, between := compress.NewPlan(in, &opt).Edges(); sinks != x.sinks || recent != x.recent || between != 100-sinks-recent {
			t.Errorf("%d tokens before, %d behind: %d sinks, %d recent, %d between, want %d and %d", x.before, x.behind, sinks, recent, between, x.sinks, x.recent)
		}
	}
	in := synthetic(1, 1, 100, 64, compress.F32)
	in.Behind = -1
	opt, c := compress.Weighted(), compress.New(1)
	defer c.Close()
	if err := c.Compress(context.Background(), in, &opt, new(compress.Result)); err == nil {
		t.Error("a page with -1 tokens behind it was compressed")
	}
}

// The fast path computes what the definition says: clusters by priced merges, folded keys, fitted values.
func TestLearnedCoresMatchTheOracle(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	folded := compress.Weighted()
	folded.Fold = true
	deaf := compress.Weighted()
	deaf.Attention = false
	blocks := folded
	blocks.Budget, blocks.Granule = compress.Layered, 16
	for _, p := range pages(t)[:2] {
		for name, x := range map[string]lesson{"fitted": {p, compress.Weighted()}, "folded": {p, folded}, "in blocks": {strided(p), blocks}, "inside a sequence": {inside(p), folded}, "important": {important(p), folded},
			"important, not asked": {important(p), deaf}} {
			x.opt.Ratio, x.opt.Recent = 0.25, 32 // as in TestWeightedCompressionMatchesTheOracle
			if err := c.Compress(context.Background(), &x.page.in, &x.opt, &res); err != nil {
				t.Fatal(err)
			}
			planes, differ := 0, 0
			for l, heads := range oracle.Compress(x.page.widened(t), x.opt) {
				for h, want := range heads {
					plane := l*p.in.Heads + h
					planes++
					if int(res.Slots[plane]) != len(want.Count) || !sameLabels(res.Assign[plane*p.in.Tokens+x.sinks():], want.Label, x.sinks()) {
						differ++
						continue
					}
					k := tensor{DType: "F16", data: res.K}.floats()[plane*res.Cores*p.in.Dim:]
					v := tensor{DType: "F16", data: res.V}.floats()[plane*res.Cores*p.in.Dim:]
					for i := range want.Count {
						if got := float64(res.Bias[plane*res.Cores+i]); math.Abs(got-want.Bias[i]) > 1e-5 {
							t.Fatalf("%s, %s, layer %d head %d core %d: bias %v, want %v", p.name, name, l, h, i, got, want.Bias[i])
						}
						for j := range p.in.Dim {
							near(t, "key", float64(k[i*p.in.Dim+j]), want.K[i][j])
							near(t, "value", float64(v[i*p.in.Dim+j]), want.V[i][j])
						}
					}
				}
			}
			if differ > 1 {
				t.Errorf("%s, %s: %d of %d planes are clustered differently, want one at most", p.name, name, differ, planes)
			}
		}
	}
}

// near holds a number in 16 bits against its definition.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 2e-2+1e-2*math.Abs(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// The fit does what it is for: less is lost to the queries that taught. What that is worth to others, only a model can say:
// make quality.
func TestFittedCoresLoseLess(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	errorOf := func(p page, opt compress.Options) float64 {
		opt.Ratio = 0.25
		var res compress.Result
		var full, got compress.Attention
		var probes compress.Probes
		var f compress.Fidelity
		p.in.QWindow = 3 // so few that all teach and all measure
		var q []byte
		for head := range p.in.Layers * p.in.QHeads {
			q = append(q, p.in.Q[head*16*p.in.Dim*2:][:3*p.in.Dim*2]...)
		}
		p.in.Q, p.in.QPositions = q, p.in.Positions[p.in.Tokens-16:][:3]
		probe, err := probes.Of(&p.in)
		if err := errors.Join(err, c.Compress(context.Background(), &p.in, &opt, &res), c.Attend(context.Background(), &probe, nil, &full),
			c.Attend(context.Background(), &probe, &res, &got)); err != nil {
			t.Fatal(err)
		}
		f.Compare(&full, &got)
		return f.Error
	}
	for _, p := range pages(t) {
		bare := compress.Weighted()
		bare.Fit = false
		folded, both := bare, compress.Weighted()
		folded.Fold, both.Fold = true, true
		for _, x := range []struct {
			name         string
			bare, fitted float64
		}{{"with biases", errorOf(p, bare), errorOf(p, compress.Weighted())}, {"folded", errorOf(p, folded), errorOf(p, both)}} {
			t.Logf("%s, %s: means lose %.3f, fitted cores %.3f", p.name, x.name, x.bare, x.fitted)
			if x.fitted >= 0.97*x.bare {
				t.Errorf("%s, %s: fitted cores lose %.3f, means %.3f", p.name, x.name, x.fitted, x.bare)
			}
		}
	}
}

// The properties of all results hold for folded cores too, and they fall back where queries have no common direction.
func TestFoldedPropertiesHoldForEveryShape(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	for _, rest := range []compress.Rest{compress.Cluster, compress.Stride} {
		opt := compress.Weighted()
		if rest == compress.Stride {
			opt = compress.Uniform()
		}
		opt.Fold = true
		for _, ratio := range []float64{0.05, 0.25, 0.9} {
			opt.Ratio = ratio
			for _, n := range []int{1, 5, 21, 37, 101, 300} {
				for _, dtype := range []compress.DType{compress.BF16, compress.F32, compress.F8E4M3} {
					in := synthetic(2, 2, n, 32, dtype)
					if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
						t.Fatal(err)
					}
					check(t, in, &opt, &res)
				}
			}
		}
	}
}

// A page whose queries are all zero teaches nothing, and breaks nothing.
func TestQueriesThatSayNothingAreHarmless(t *testing.T) {
	c := compress.New(1)
	defer c.Close()
	in := synthetic(1, 2, 300, 32, compress.F32)
	clear(in.Q)
	opt := compress.Weighted()
	opt.Fold, opt.Ratio = true, 0.25
	var res compress.Result
	if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
		t.Fatal(err)
	}
	for i, x := range append(tensor{DType: "F32", data: res.K}.floats(), tensor{DType: "F32", data: res.V}.floats()...) {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			t.Fatalf("element %d of the cores is %v", i, x)
		}
	}
	check(t, in, &opt, &res)
}

func TestFoldingNeedsQueries(t *testing.T) {
	c := compress.New(1)
	defer c.Close()
	in := synthetic(1, 1, 100, 32, compress.BF16)
	in.Q = nil
	opt := compress.Weighted()
	opt.Fold = true
	var res compress.Result
	var coded interface{ Code() string }
	if err := c.Compress(context.Background(), in, &opt, &res); !errors.As(err, &coded) || coded.Code() != "page.no_queries" {
		t.Errorf("got %v, want page.no_queries", err)
	}
}

// Who does not ask for attention does not hear the page's word on it.
func TestImportanceIsIgnoredWithoutAttention(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var with, without compress.Result
	for _, p := range pages(t)[:2] {
		opt := compress.Weighted()
		opt.Ratio, opt.Attention = 0.25, false
		err := c.Compress(context.Background(), &p.in, &opt, &without)
		p = important(p)
		if err := errors.Join(err, c.Compress(context.Background(), &p.in, &opt, &with)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(with.Assign, without.Assign) || !bytes.Equal(with.K, without.K) || !bytes.Equal(with.V, without.V) {
			t.Errorf("%s: importance changes the cores of a method that does not look at it", p.name)
		}
	}
}

// Importance decides which tokens stay: those that it names are exact.
func TestImportantTokensStayExact(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	in := synthetic(2, 2, 400, 32, compress.BF16)
	in.Importance = make([]float32, 4*400)
	for plane := range 4 {
		for i := 100; i < 130; i++ {
			in.Importance[plane*400+i] = 1
		}
	}
	opt := compress.Weighted()
	opt.Ratio = 0.25
	var res compress.Result
	if err := c.Compress(context.Background(), in, &opt, &res); err != nil {
		t.Fatal(err)
	}
	for plane := range 4 {
		for i := 100; i < 130; i++ {
			core := res.Assign[plane*400+i]
			row := 2 * in.Dim
			if res.Counts[plane*res.Cores+int(core)] != 1 || !bytes.Equal(res.K[(plane*res.Cores+int(core))*row:][:row], in.K[(plane*400+i)*row:][:row]) {
				t.Fatalf("plane %d: important token %d is not exact", plane, i)
			}
		}
	}
}
