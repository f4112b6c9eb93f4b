//go:build linux && (amd64 || arm64) && !nogpu

package gpu_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/gpu/fake"
)

// onDevice opens the fake driver's device or, where SEMPROXY_TEST_REQUIRE names cuda, the machine's.
func onDevice(t testing.TB, cpu gpu.CPU, opt gpu.Options) *gpu.Compressor {
	t.Helper()
	if !fake.Required("cuda") {
		opt.Library = fake.Library(t)
	}
	fenced(t, opt.Library)
	if opt.Memory == 0 {
		opt.Memory = 256 << 20
	}
	c, err := gpu.Open(cpu, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func onCPU(t testing.TB) *compress.Compressor {
	t.Helper()
	c := compress.New(2)
	t.Cleanup(c.Close)
	return c
}

// noCPU fails the test when a page goes to the CPU.
func noCPU(t testing.TB) gpu.Observer {
	return gpu.Observer{Fallback: func(reason string, err error) { t.Errorf("a page went to the CPU: %s: %v", reason, err) }}
}

// methods are the options that the kernels have.
func methods() map[string]compress.Options {
	all := map[string]compress.Options{"semantic": compress.Semantic(), "weighted": compress.Weighted(), "paper": compress.Paper()}
	add := func(name string, f func(o *compress.Options)) {
		o := compress.Semantic()
		f(&o)
		all[name] = o
	}
	add("equal shared", func(o *compress.Options) { o.Budget, o.Shared, o.Exact = compress.Equal, true, 0.5 })
	add("adaptive shared", func(o *compress.Options) { o.Shared = true })
	add("equal regular", func(o *compress.Options) { o.Budget, o.Regular = compress.Equal, true })
	add("fixed", func(o *compress.Options) { o.Budget, o.Threshold, o.Exact = compress.Fixed, 0.8, 0 })
	add("fixed exact", func(o *compress.Options) { o.Budget, o.Threshold = compress.Fixed, 0.8 })
	add("layered", func(o *compress.Options) { o.Budget = compress.Layered })
	add("layered shared", func(o *compress.Options) { o.Budget, o.Shared = compress.Layered, true })
	add("weighted layered", func(o *compress.Options) { *o = compress.Weighted(); o.Budget = compress.Layered })
	add("granules", func(o *compress.Options) { *o = unlearned(); o.Budget, o.Granule = compress.Layered, 16 })
	add("adaptive granules", func(o *compress.Options) { *o = unlearned(); o.Granule = 16 })
	add("adaptive granules, shared", func(o *compress.Options) { o.Granule, o.Shared = 16, true })
	add("regular granules", func(o *compress.Options) { o.Budget, o.Regular, o.Granule = compress.Equal, true, 8 })
	add("small keys", func(o *compress.Options) { o.Keep = compress.SmallKeys })
	add("spans", func(o *compress.Options) { o.Spans = []compress.Span{{From: 50, To: 60}, {From: 100, To: 101}} })
	add("no window", func(o *compress.Options) { o.Sinks, o.Recent = 0, 0 })
	add("fp8", func(o *compress.Options) { o.FP8 = compress.F8E4M3 })
	add("fp8 e5m2", func(o *compress.Options) { o.FP8 = compress.F8E5M2 })
	add("long chunks", func(o *compress.Options) { o.ChunkMin, o.ChunkMax = 200, 300 })
	add("short chunks", func(o *compress.Options) { o.ChunkMin, o.ChunkMax = 4, 8 })
	add("unlearned", func(o *compress.Options) { *o = unlearned() })
	add("fitted", func(o *compress.Options) { o.Fit = true })
	add("fitted, fp8", func(o *compress.Options) { o.Fit, o.FP8 = true, compress.F8E4M3 })
	add("priced", func(o *compress.Options) { *o = compress.Weighted(); o.Fit = false })
	add("priced shared", func(o *compress.Options) {
		*o = compress.Weighted()
		o.Fit, o.Shared, o.Budget, o.Across = false, true, compress.Equal, false
	})
	shared := unlearned()
	shared.Shared, shared.Across = true, false
	all["weighted shared"] = shared
	return all
}

// learning are the options that need a page's queries.
func learning() map[string]compress.Options {
	all := map[string]compress.Options{"fitted hybrid": compress.Hybrid(), "folded": compress.Semantic(), "folded weighted": compress.Weighted()}
	for name, o := range all {
		o.Fit, o.Fold = name != "folded", name != "fitted hybrid"
		if name == "folded weighted" {
			o.Budget, o.Granule = compress.Layered, 16
		}
		all[name] = o
	}
	return all
}

// unlearned is the default for a page whose queries teach nothing.
func unlearned() compress.Options {
	o := compress.Weighted()
	o.Attention, o.Fit = false, false
	return o
}

// What the kernels do not have goes to the CPU, and that is said.
func TestWhatTheKernelsDoNotHave(t *testing.T) {
	cpu := onCPU(t)
	var count counter
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: count.observer()})
	in := realPages(t)["kjv"]
	rows := map[string]func(o *compress.Options){
		"window":  func(o *compress.Options) { *o = compress.Window() },
		"uniform": func(o *compress.Options) { *o = compress.Uniform() },
	}
	for name, set := range rows {
		opt := compress.Weighted()
		opt.Ratio = 0.25
		set(&opt)
		var want, got compress.Result
		if err := errors.Join(cpu.Compress(context.Background(), in, &opt, &want), dev.Compress(context.Background(), in, &opt, &got)); err != nil {
			t.Fatal(err)
		}
		want.Elapsed, got.Elapsed = 0, 0
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s: not the CPU's result", name)
		}
	}
	if n := count.of("method"); n != len(rows) {
		t.Errorf("%d pages went to the CPU, want %d", n, len(rows))
	}
}

// On the real pages the device gives what the CPU gives: every token the same core, every head the same threshold; see aligned for
// what may differ.
func TestTheDeviceGivesTheCoresOfTheCPU(t *testing.T) {
	cpu := onCPU(t)
	dev := onDevice(t, cpu, gpu.Options{Latency: -1, Observer: noCPU(t)})
	pages := realPages(t)
	if testing.Short() || raced {
		pages = map[string]*compress.Input{"kjv": pages["kjv"]}
	}
	presets := []string{"semantic", "weighted", "paper"}
	for _, page := range slices.Sorted(maps.Keys(pages)) {
		all := methods()
		maps.Copy(all, learning())
		for name, opt := range all {
			ratios := []float64{0.25}
			if slices.Contains(presets, name) && !raced {
				ratios = []float64{0.5, 0.25, 0.125}
			}
			for _, opt.Ratio = range ratios {
				same(t, fmt.Sprintf("%s, %s at %v", page, name, opt.Ratio), cpu, dev, pages[page], &opt)
			}
		}
	}
}

// same holds a page's result against the CPU's.
func same(t *testing.T, what string, cpu gpu.CPU, dev *gpu.Compressor, in *compress.Input, opt *compress.Options) {
	t.Helper()
	var want, got compress.Result
	if err := cpu.Compress(context.Background(), in, opt, &want); err != nil {
		t.Fatal(err)
	}
	if err := dev.Compress(context.Background(), in, opt, &got); err != nil {
		t.Fatal(err)
	}
	if onEdge(&got, &want, max(opt.Granule, 1)) {
		t.Logf("%s: one core, or one granule of them, is another head's", what)
		return
	}
	compare(t, what, in, &got, &want)
}

// onEdge reports whether the two differ as the last bit of one price can make them: a merge that costs what the threshold allows, to
// that bit, is made by one and not by the other, so that a head has a granule of cores more and another one less.
func onEdge(got, want *compress.Result, granule int) bool {
	if len(got.Slots) != len(want.Slots) || slices.Equal(got.Slots, want.Slots) {
		return false
	}
	apart := 0
	for i := range want.Slots {
		apart += max(int(got.Slots[i]-want.Slots[i]), int(want.Slots[i]-got.Slots[i]))
		if d := got.Thresholds[i] - want.Thresholds[i]; d < -8 || d > 8 {
			return false
		}
	}
	return apart <= 2*granule
}

func compare(t *testing.T, what string, in *compress.Input, got, want *compress.Result) {
	t.Helper()
	if got.Cores != want.Cores || got.DType != want.DType || !slices.Equal(got.Thresholds, want.Thresholds) || !slices.Equal(got.Slots, want.Slots) {
		t.Errorf("%s: %d cores of %v, thresholds %v, slots %v; want %d of %v, %v, %v", what, got.Cores, got.DType, got.Thresholds, got.Slots,
			want.Cores, want.DType, want.Thresholds, want.Slots)
		return
	}
	got = aligned(t, what, got, want)
	if got == nil {
		return
	}
	if !slices.Equal(got.Counts, want.Counts) || !slices.Equal(got.Bias, want.Bias) || !slices.Equal(got.Dropped, want.Dropped) {
		t.Errorf("%s: counts, bias or dropped differ", what)
	}
	near(t, what+": positions", got.Positions, want.Positions, 1e-2)
	near(t, what+": key similarity", got.KeySimilarity, want.KeySimilarity, 5e-4)
	near(t, what+": value error", got.ValueError, want.ValueError, 5e-4) // a root: of nothing lost, of rounding
	near(t, what+": k scale", got.KScale, want.KScale, 1e-2)
	near(t, what+": v scale", got.VScale, want.VScale, 1e-2)
	tolerance := 3e-2
	switch got.DType {
	case compress.BF16:
		tolerance = 5e-2
	case compress.F8E4M3, compress.F8E5M2:
		tolerance = 2.5 // a neighbouring code
	}
	near(t, what+": k", floats(got.K, got.DType, got.KScale, in), floats(want.K, want.DType, want.KScale, in), tolerance)
	// Values of fitted cores come out of a linear system, where the last bit of a sum may make a hundred times as much of one element
	// in a hundred thousand: such a one may be further off, and all of them together hardly.
	v, w := floats(got.V, got.DType, got.VScale, in), floats(want.V, want.DType, want.VScale, in)
	near(t, what+": v", v, w, max(tolerance, 0.1))
	if apart := apart(v, w); apart > tolerance/10 {
		t.Errorf("%s: v are %v apart in the mean, want %v", what, apart, tolerance/10)
	}
}

// apart is the root of the mean squared difference.
func apart(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return math.Sqrt(sum / float64(max(len(a), 1)))
}

func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", what, len(got), len(want))
		return
	}
	for i := range want {
		if !(math.Abs(float64(got[i])-float64(want[i])) <= tolerance) {
			t.Errorf("%s[%d] = %v, want %v within %v", what, i, got[i], want[i], tolerance)
			return
		}
	}
}

// floats widens by the definitions of the types, apart from the code under test.
func floats(b []byte, dtype compress.DType, scales []float32, in *compress.Input) []float32 {
	n := len(b) / dtype.Size()
	out := make([]float32, n)
	small := func(sign, exp, frac, mantissa, bias int) float64 {
		x := math.Ldexp(float64(frac), 1-bias-mantissa)
		if exp > 0 {
			x = math.Ldexp(float64(frac+1<<mantissa), exp-bias-mantissa)
		}
		if sign != 0 {
			return -x
		}
		return x
	}
	for i := range out {
		switch dtype {
		case compress.F32:
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		case compress.BF16:
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
		case compress.F16:
			h := int(binary.LittleEndian.Uint16(b[2*i:]))
			out[i] = float32(small(h>>15, h>>10&31, h&1023, 10, 15))
		case compress.F8E4M3:
			out[i] = float32(small(int(b[i]>>7), int(b[i]>>3&15), int(b[i]&7), 3, 7)) * scales[i/(n/(in.Layers*in.Heads))]
		default:
			out[i] = float32(small(int(b[i]>>7), int(b[i]>>2&31), int(b[i]&3), 2, 15)) * scales[i/(n/(in.Layers*in.Heads))]
		}
	}
	return out
}
