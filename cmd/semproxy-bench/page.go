package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/sidecar/config"
)

// pageFlags are the flags of "semproxy-bench page".
type pageFlags struct {
	device                              string
	layers, heads, tokens, dim, callers int
	dtype, method                       string
	ratio                               float64
	duration, latency                   time.Duration
	memory                              string
	output                              string
}

// benchReport is what "semproxy-bench page" measures. Rates are bytes per second of K and V.
type benchReport struct {
	Device     string  `json:"device"`
	PageBytes  int     `json:"page_bytes"`
	Callers    int     `json:"callers"`
	Pages      int64   `json:"pages"`
	OnCPU      int64   `json:"pages_on_cpu"` // of them, where a GPU was asked for
	Rate       float64 `json:"bytes_per_second"`
	MemoryCopy float64 `json:"memory_copy_bytes_per_second"`
	Fraction   float64 `json:"fraction_of_memory_copy"`

	GPU *gpuBench `json:"gpu,omitempty"`
}

// gpuBench is what happened on the device while the pages ran.
type gpuBench struct {
	PagesPerBatch  float64 `json:"pages_per_batch"`
	KernelRate     float64 `json:"kernel_bytes_per_second"` // while kernels ran
	KernelFraction float64 `json:"kernel_fraction_of_device_copy"`
	CopyInRate     float64 `json:"copy_in_bytes_per_second"` // while copies in ran
	DeviceCopy     float64 `json:"device_copy_bytes_per_second"`
	PinnedIn       float64 `json:"pinned_copy_in_bytes_per_second"`
	PinnedOut      float64 `json:"pinned_copy_out_bytes_per_second"`
	Staging        float64 `json:"staging_fraction_of_pinned_copy"` // of the whole path, host memory to host memory
}

func newPageCommand() *cobra.Command {
	var f pageFlags
	cmd := &cobra.Command{
		Use:   "page",
		Short: "Measure how fast pages are compressed, against a copy of the same bytes",
		Long: `Compress random pages on a device for a while and report bytes of K and V per second. In the same run memory is copied, since that
is the limit: on the CPU by all callers at once, on a GPU within its memory and over pinned memory.`,
		Example: `  semproxy-bench page --device cpu
  semproxy-bench page --device cuda:0 --heads 8 --dim 128 --tokens 4096 --callers 16 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.device, "device", "cpu", "cpu or cuda:N")
	fl.IntVar(&f.layers, "layers", 1, "layers of a page")
	fl.IntVar(&f.heads, "heads", 8, "KV heads of a layer")
	fl.IntVar(&f.tokens, "tokens", 2048, "tokens of a page")
	fl.IntVar(&f.dim, "dim", 128, "elements of a head")
	fl.StringVar(&f.dtype, "dtype", "bf16", "f32, f16 or bf16")
	fl.StringVar(&f.method, "method", "weighted", "weighted, semantic or paper")
	fl.Float64Var(&f.ratio, "ratio", 0.25, "cores kept per token, in (0, 1]")
	fl.IntVar(&f.callers, "callers", 0, "pages at a time; 0: one per core, on a GPU at least 8")
	fl.DurationVar(&f.duration, "duration", 3*time.Second, "how long to measure")
	fl.StringVar(&f.memory, "gpu-memory", "1GiB", "most of the GPU's memory to take")
	fl.DurationVar(&f.latency, "gpu-latency", gpu.DefaultLatency, "how long a page may wait for others to share a batch")
	show.Flag(cmd, &f.output)
	show.Complete(cmd, "dtype", []string{"bf16", "f16", "f32"})
	show.Complete(cmd, "method", []string{"weighted", "semantic", "paper"})
	show.Complete(cmd, "device", []string{"cpu", "cuda:0"})
	show.JSONFlag(cmd, &f.output)
	return cmd
}

func (f *pageFlags) run(cmd *cobra.Command) error {
	page, err := f.page()
	if err != nil {
		return err
	}
	preset, ok := map[string]func() compress.Options{"weighted": compress.Weighted, "semantic": compress.Semantic, "paper": compress.Paper}[f.method]
	if !ok {
		return fmt.Errorf("--method must be weighted, semantic or paper, got %q", f.method)
	}
	opt := preset()
	opt.Ratio = f.ratio
	var memory policy.ByteSize
	if err := memory.UnmarshalText([]byte(f.memory)); err != nil {
		return fmt.Errorf("--gpu-memory: %w", err)
	}
	cpu := compress.New(0)
	defer cpu.Close()
	if f.callers <= 0 {
		f.callers = runtime.GOMAXPROCS(0)
	}
	r := &benchReport{Device: cpu.Device(), PageBytes: len(page.K) + len(page.V)}
	var worker pipeline.Compressor = cpu
	var sums batchSums
	section := config.Compress{Device: f.device}
	if index, ok := section.CUDA(); ok {
		f.callers = max(f.callers, 8)
		dev, err := gpu.Open(cpu, gpu.Options{Device: index, Memory: int(memory), Latency: f.latency, Observer: sums.observer(&r.OnCPU)})
		if err != nil {
			return fmt.Errorf("--device %s: %w", f.device, err)
		}
		defer dev.Close()
		worker, r.Device = dev, dev.Device()
	} else if f.device != config.DeviceCPU {
		return fmt.Errorf("--device must be cpu or cuda:N, got %q", f.device)
	}
	r.Callers = f.callers
	r.MemoryCopy = f.copies(page)
	took, err := f.pages(cmd.Context(), worker, page, &opt, &r.Pages)
	if err != nil {
		return err
	}
	r.Rate = float64(r.Pages) * float64(r.PageBytes) / took.Seconds()
	r.Fraction = r.Rate / r.MemoryCopy
	if sums.batches > 0 {
		index, _ := section.CUDA()
		rates, err := gpu.Copies(gpu.Options{Device: index}, min(256<<20, int(memory)/4), 10)
		if err != nil {
			return err
		}
		r.GPU = sums.report(r, &rates)
	}
	return show.As(cmd.OutOrStdout(), f.output, r, r.write)
}

// pages compresses the page with all callers until the time is over.
func (f *pageFlags) pages(ctx context.Context, worker pipeline.Compressor, page *compress.Input, opt *compress.Options, done *int64) (time.Duration, error) {
	var (
		callers sync.WaitGroup
		failed  atomic.Pointer[error]
		count   atomic.Int64
	)
	one := func(res *compress.Result) bool {
		if err := worker.Compress(ctx, page, opt, res); err != nil {
			failed.Store(&err)
			return false
		}
		return true
	}
	var warm compress.Result
	if !one(&warm) { // memory and tables are made once
		return 0, *failed.Load()
	}
	start := time.Now()
	for range f.callers {
		callers.Go(func() {
			var res compress.Result
			for time.Since(start) < f.duration && one(&res) {
				count.Add(1)
			}
		})
	}
	callers.Wait()
	took := time.Since(start)
	*done = count.Load()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return took, nil
}

// copies is the rate at which all callers together copy the page, bytes read per second.
func (f *pageFlags) copies(page *compress.Input) float64 {
	var callers sync.WaitGroup
	var count atomic.Int64
	start := time.Now()
	limit := min(f.duration/3, time.Second)
	for range min(f.callers, runtime.GOMAXPROCS(0)) {
		callers.Go(func() {
			to := make([]byte, len(page.K))
			for time.Since(start) < limit {
				copy(to, page.K)
				copy(to, page.V)
				count.Add(1)
			}
		})
	}
	callers.Wait()
	return float64(count.Load()) * float64(len(page.K)+len(page.V)) / time.Since(start).Seconds()
}

func (r *benchReport) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	row("device", "%s", r.Device)
	row("pages", "%d of %s by %d callers", r.Pages, show.Size(r.PageBytes), r.Callers)
	row("compressed", "%s of K and V per second", rate(r.Rate))
	row("memory copy", "%s (compressing reaches %.3f of it)", rate(r.MemoryCopy), r.Fraction)
	if g := r.GPU; g != nil {
		row("pages on the CPU", "%d", r.OnCPU)
		row("batches", "%.1f pages each", g.PagesPerBatch)
		row("kernels", "%s while they ran; copy within the device %s (%.3f of it)", rate(g.KernelRate), rate(g.DeviceCopy), g.KernelFraction)
		row("copies in", "%s while they ran; pinned copy in %s, out %s (the whole path reaches %.3f of it)",
			rate(g.CopyInRate), rate(g.PinnedIn), rate(g.PinnedOut), g.Staging)
	}
	return t.Flush()
}

func rate(bytesPerSecond float64) string { return fmt.Sprintf("%.2f GB/s", bytesPerSecond/1e9) }
