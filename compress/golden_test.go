package compress_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/compress/oracle"
)

// eachGolden calls f for every (page, ratio, variant) that the expected files hold.
func eachGolden(t *testing.T, f func(t *testing.T, p page, key string, opt compress.Options)) {
	for _, p := range pages(t) {
		for _, ratio := range []int{500, 250, 125} {
			for _, name := range []string{"rec", "paper", "model"} {
				key := fmt.Sprintf("r%d_%s", ratio, name)
				if _, ok := p.expected[key+"_label"]; !ok {
					continue
				}
				t.Run(p.name+"/"+key, func(t *testing.T) {
					opt := variants()[name]
					opt.Ratio = float64(ratio) / 1000
					f(t, p, key, opt)
				})
			}
		}
	}
}

// expectedOf returns the expected labels, threshold and slots of one plane.
func expectedOf(p page, key string, layer, head, n int) (label []int32, tau, slots int32) {
	x := p.expected[key+"_label"]
	all, taus, counts := x.ints(), p.expected[key+"_tau"].ints(), p.expected[key+"_slots"].ints()
	i := layer
	if len(x.Shape) == 3 {
		i = layer*p.in.Heads + head
	}
	return all[i*n : (i+1)*n], taus[min(i, len(taus)-1)], counts[i]
}

func TestOracleReproducesTheReference(t *testing.T) {
	eachGolden(t, func(t *testing.T, p page, key string, opt compress.Options) {
		heads := oracle.Compress(p.widened(t), opt)
		for l := range heads {
			for h, got := range heads[l] {
				label, tau, slots := expectedOf(p, key, l, h, len(got.Label))
				if got.Threshold != int(tau) || len(got.Count) != int(slots) {
					t.Errorf("layer %d head %d: threshold %d and %d cores, want %d and %d", l, h, got.Threshold, len(got.Count), tau, slots)
				}
				for i, want := range label {
					if got.Label[i] != int(want) {
						t.Fatalf("layer %d head %d token %d: label %d, want %d", l, h, i, got.Label[i], want)
					}
				}
			}
		}
	})
}

func TestCompressorReproducesTheReference(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	var res compress.Result
	eachGolden(t, func(t *testing.T, p page, key string, opt compress.Options) {
		if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
			t.Fatal(err)
		}
		n := p.in.Tokens - opt.Sinks - opt.Recent
		for l := range p.in.Layers {
			for h := range p.in.Heads {
				plane := l*p.in.Heads + h
				label, tau, slots := expectedOf(p, key, l, h, n)
				if res.Thresholds[plane] != tau || res.Slots[plane] != slots {
					t.Errorf("layer %d head %d: threshold %d and %d cores, want %d and %d", l, h, res.Thresholds[plane], res.Slots[plane], tau, slots)
				}
				assign := res.Assign[plane*p.in.Tokens+opt.Sinks:][:n]
				for i, want := range label {
					if assign[i] != want+int32(opt.Sinks) {
						t.Fatalf("layer %d head %d token %d: core %d, want %d", l, h, i, assign[i], want+int32(opt.Sinks))
					}
				}
			}
		}
	})
}

// The expected file holds K, V, bias and attention outputs for one setting: equal, shared, a quarter kept.
func TestCoresAndAttentionMatchTheReference(t *testing.T) {
	c := compress.New(2)
	defer c.Close()
	for _, p := range pages(t) {
		want, ok := p.expected["r250_rec_k"]
		if !ok {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			opt := variants()["rec"]
			opt.Ratio = 0.25
			var res compress.Result
			if err := c.Compress(context.Background(), &p.in, &opt, &res); err != nil {
				t.Fatal(err)
			}
			if res.Cores != want.Shape[2] {
				t.Fatalf("%d cores per head, want %d", res.Cores, want.Shape[2])
			}
			within(t, "k", tensor{DType: "F16", data: res.K}.floats(), want.floats(), 2e-2)
			within(t, "v", tensor{DType: "F16", data: res.V}.floats(), p.expected["r250_rec_v"].floats(), 2e-2)
			for i, want := range p.expected["r250_rec_bias"].floats() {
				// The file writes padding as -1e30.
				if got := res.Bias[i]; math.Abs(float64(got-want)) > 1e-6 && !(math.IsInf(float64(got), -1) && want == -1e30) {
					t.Fatalf("bias[%d] = %v, want %v", i, got, want)
				}
			}
			var full, got compress.Attention
			if err := c.Attend(context.Background(), &p.in, nil, &full); err != nil {
				t.Fatal(err)
			}
			if err := c.Attend(context.Background(), &p.in, &res, &got); err != nil {
				t.Fatal(err)
			}
			relative(t, "full attention", full.Out, p.expected["full_attn"].floats(), 1e-2)
			relative(t, "attention over cores", got.Out, p.expected["r250_rec_attn"].floats(), 1e-2)
			var f compress.Fidelity
			f.Compare(&full, &got)
			t.Logf("attention error %.3f, worst %.3f (layer %d, query head %d), key similarity %.3f",
				f.Error, f.Worst, f.WorstLayer, f.WorstHead, res.MeanKeySimilarity())
		})
	}
}

func within(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range want {
		if math.Abs(float64(got[i])-float64(want[i])) > tolerance {
			t.Fatalf("%s[%d] = %v, want %v within %v", what, i, got[i], want[i], tolerance)
		}
	}
}

func relative(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	diff, full := 0.0, 0.0
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		diff += e * e
		full += float64(want[i]) * float64(want[i])
	}
	if r := math.Sqrt(diff / full); !(r < tolerance) {
		t.Fatalf("%s: relative error %v, want below %v", what, r, tolerance)
	}
}
