package compress_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/internal/simd"
)

// workload is what a benchmark compresses, and how.
type workload struct {
	dtype              compress.DType
	dim, heads, tokens int
	chunk              int // length of every chunk
	cores              int
	kernel             *simd.Kernels
	opt                compress.Options
	asked              bool // with queries: what the default does
	fourfold           bool // search for the threshold that keeps a quarter
}

func baseWorkload() workload {
	opt := compress.Semantic()
	opt.Ratio = 0.25
	return workload{dtype: compress.BF16, dim: 128, heads: 8, tokens: 4096, chunk: 64, cores: 1, kernel: simd.Best(), opt: opt}
}

// BenchmarkCompress answers: how many bytes of K are taken in per second, and what does that depend on? One thing at a time
// differs from the base: BF16, head dimension 128, 8 heads of 4096 tokens, chunks of 64, a quarter kept (adaptive), one core.
func BenchmarkCompress(b *testing.B) {
	run := func(name string, change func(w *workload)) {
		b.Run(name, func(b *testing.B) {
			w := baseWorkload()
			change(&w)
			w.run(b)
		})
	}
	run("base", func(*workload) {})
	for _, t := range []compress.DType{compress.F32, compress.F16, compress.F8E4M3} {
		run("dtype="+t.String(), func(w *workload) { w.dtype = t })
	}
	for _, d := range []int{64, 80, 96, 256} {
		run(fmt.Sprintf("dim=%d", d), func(w *workload) { w.dim = d })
	}
	for _, n := range []int{96, 256} {
		run(fmt.Sprintf("chunk=%d", n), func(w *workload) { w.chunk = n })
	}
	for _, r := range []float64{0.5, 0.125} {
		run(fmt.Sprintf("ratio=%v", r), func(w *workload) { w.opt.Ratio = r })
	}
	run("budget=equal", func(w *workload) { w.opt.Budget = compress.Equal })
	run("budget=threshold", func(w *workload) { w.opt.Budget, w.opt.Ratio, w.opt.Exact, w.fourfold = compress.Fixed, 1, 0, true })
	run("preset=shared", func(w *workload) { w.opt.Shared = true })
	run("preset=paper", func(w *workload) { w.opt = compress.Paper(); w.opt.Ratio = 0.25 })
	run("preset=weighted", func(w *workload) { w.opt, w.asked = compress.Weighted(), true; w.opt.Ratio = 0.25 })
	run("preset=folded", func(w *workload) {
		w.opt, w.asked = compress.Weighted(), true
		w.opt.Ratio, w.opt.Budget, w.opt.Fold, w.opt.Granule = 0.25, compress.Layered, true, 16
	})
	run("output=F8_E4M3", func(w *workload) { w.opt.FP8 = compress.F8E4M3 })
	run("cores=2", func(w *workload) { w.cores = 2 })
	for _, k := range []int{1, 8, 32, 128} {
		run(fmt.Sprintf("tokens=%dk", k), func(w *workload) { w.tokens = k << 10 })
	}
	for _, k := range simd.All() {
		if k != simd.Best() {
			run("kernel="+k.Name, func(w *workload) { w.kernel = k })
		}
	}
}

func (w *workload) run(b *testing.B) {
	in := synthetic(1, w.heads, w.tokens, w.dim, w.dtype)
	if w.asked {
		ask(in, 4, 64)
	}
	w.opt.ChunkMin, w.opt.ChunkMax = w.chunk, w.chunk
	c := compress.NewWith(w.cores, w.kernel)
	defer c.Close()
	var res compress.Result
	one := func() {
		if err := c.Compress(context.Background(), in, &w.opt, &res); err != nil {
			b.Fatal(err)
		}
	}
	if w.fourfold {
		for from, to := -1.0, 1.0; to-from > 1e-3; {
			w.opt.Threshold = (from + to) / 2
			if one(); res.Kept() > 0.25 {
				to = w.opt.Threshold
			} else {
				from = w.opt.Threshold
			}
		}
	}
	one()                    // the memory is there when the clock starts
	dst := bytes.Clone(in.K) // its pages are mapped
	before := copyTime(dst, in)
	b.SetBytes(int64(len(in.K)))
	b.ReportAllocs()
	from := cpuTime()
	for b.Loop() {
		one()
	}
	b.ReportMetric(float64(len(in.K)*b.N)/float64(cpuTime()-from), "GB/cpu-s")
	perPage := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(perPage)/(float64(before+copyTime(dst, in))/2), "copies")
	b.ReportMetric(float64(perPage)/float64(w.tokens), "ns/token")
	b.ReportMetric(res.Kept(), "kept")
}

// ask gives a page queries as an adapter sends them: so many heads to a KV head, from all over the page.
func ask(in *compress.Input, heads, window int) {
	r := rand.New(rand.NewPCG(2, 3))
	in.QHeads, in.QWindow, in.QPositions = heads*in.Heads, window, make([]int32, window)
	for i := range in.QPositions {
		in.QPositions[i] = int32((i + 1) * (in.Tokens - 1) / window)
	}
	in.Q = appendRow(nil, gauss(r, in.Layers*in.QHeads*window*in.Dim), compress.F32)
}

// cpuTime is the processor time of this process: what others do on the machine lengthens it less than it does the clock's.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// copyTime is how long one core takes to copy K and V, on average over some tens of milliseconds. It is taken right before and
// right after a measurement, so that other load on the machine slows both.
func copyTime(dst []byte, in *compress.Input) time.Duration {
	start, n := time.Now(), 0
	for n == 0 || time.Since(start) < 50*time.Millisecond {
		copy(dst, in.K)
		copy(dst, in.V)
		n++
	}
	return time.Since(start) / time.Duration(n)
}

// BenchmarkMemoryCopy is the yardstick: K and V of the base workload, copied by one core. As for the others, the bytes per
// second are those of K.
func BenchmarkMemoryCopy(b *testing.B) {
	for _, k := range []int{1, 4, 8, 32, 128} {
		b.Run(fmt.Sprintf("tokens=%dk", k), func(b *testing.B) {
			w := baseWorkload()
			from, to := make([]byte, 2*w.heads*w.dim*k<<10), make([]byte, 2*w.heads*w.dim*k<<10)
			for i := range from {
				from[i] = byte(i)
			}
			copy(to, from)
			b.SetBytes(int64(len(from)))
			for b.Loop() {
				copy(to, from)
				copy(to, from)
			}
		})
	}
}
