package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/compress"
	"github.com/semproxy/semproxy/gpu"
	"github.com/semproxy/semproxy/sidecar/config"
)

// decodeFlags are the flags of "semproxy-bench decode".
type decodeFlags struct {
	device                         string
	contexts, batches, factors     []int
	kvHeads, qHeads, dim, block, n int
	output                         string
}

// decodeRow is one measured step.
type decodeRow struct {
	Context  int     `json:"context"`
	Batch    int     `json:"batch"`
	Factor   int     `json:"compressed"` // times smaller; 1 is the full cache
	Micros   float64 `json:"step_microseconds"`
	Bytes    int     `json:"bytes"`
	Fraction float64 `json:"fraction_of_copy_bandwidth"`
	Speedup  float64 `json:"speedup,omitempty"` // over the full cache
	Skipped  bool    `json:"skipped,omitempty"` // does not fit the device
}

func newDecodeCommand() *cobra.Command {
	var f decodeFlags
	cmd := &cobra.Command{
		Use:   "decode",
		Short: "Time a decode step over a full and a compressed cache on a GPU",
		Long: `Run the reference kernel for proportional attention (paged cache, grouped queries, a count per entry) over random keys: the whole
context, and 2, 4 and 8 times fewer entries. The fraction is of the bandwidth at which the same device copies memory.`,
		Example: `  semproxy-bench decode --device cuda:0 --context 32768 --batch 1,8,32`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.OutOrStdout()) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.device, "device", "cuda:0", "cuda:N")
	fl.IntSliceVar(&f.contexts, "context", []int{4096, 32768, 131072}, "tokens of a sequence")
	fl.IntSliceVar(&f.batches, "batch", []int{1, 8, 32}, "sequences")
	fl.IntSliceVar(&f.factors, "compressed", []int{1, 2, 4, 8}, "times fewer entries")
	fl.IntVar(&f.kvHeads, "kv-heads", 8, "KV heads")
	fl.IntVar(&f.qHeads, "q-heads", 32, "query heads")
	fl.IntVar(&f.dim, "dim", 128, "elements of a head")
	fl.IntVar(&f.block, "block", 16, "entries of a block of the cache")
	fl.IntVar(&f.n, "repeat", 50, "steps to time")
	show.Flag(cmd, &f.output)
	show.JSONFlag(cmd, &f.output)
	return cmd
}

func (f *decodeFlags) run(w io.Writer) error {
	section := config.Compress{Device: f.device}
	index, ok := section.CUDA()
	if !ok {
		return fmt.Errorf("--device must be cuda:N, got %q", f.device)
	}
	var (
		shapes  []gpu.DecodeShape
		weighed []bool
		rows    []decodeRow
	)
	for _, context := range f.contexts {
		for _, batch := range f.batches {
			for _, factor := range f.factors {
				if factor < 1 || context < factor {
					return fmt.Errorf("--compressed must be 1 to the context, got %d", factor)
				}
				shapes = append(shapes, gpu.DecodeShape{Batch: batch, KVHeads: f.kvHeads, QHeads: f.qHeads, Dim: f.dim,
					Tokens: context / factor, BlockSize: f.block, DType: compress.BF16})
				weighed = append(weighed, factor > 1)
				rows = append(rows, decodeRow{Context: context, Batch: batch, Factor: factor})
			}
		}
	}
	rates, times, err := gpu.BenchDecode(gpu.Options{Device: index, Memory: gpu.DefaultMemory}, shapes, weighed, max(f.n, 1))
	if err != nil {
		return err
	}
	full := time.Duration(0)
	for i := range rows {
		r, t := &rows[i], times[i]
		r.Micros, r.Bytes, r.Fraction, r.Skipped = float64(t.Step)/1e3, t.Bytes, t.Fraction, t.Skipped
		if r.Factor == 1 {
			full = t.Step
		} else if full > 0 && !t.Skipped {
			r.Speedup = float64(full) / float64(t.Step)
		}
	}
	if f.output != show.Table {
		return show.Value(w, f.output, map[string]any{"device": f.device, "device_copy_bytes_per_second": rates.Within, "rows": rows})
	}
	fmt.Fprintf(w, "%s, copy within the device %s\n", f.device, rate(rates.Within))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "context\tbatch\tcompressed\tstep us\tof the copy bandwidth\tspeed-up\t")
	for _, r := range rows {
		if r.Skipped {
			fmt.Fprintf(t, "%d\t%d\t%dx\tdoes not fit\t\t\t\n", r.Context, r.Batch, r.Factor)
			continue
		}
		fmt.Fprintf(t, "%d\t%d\t%dx\t%.1f\t%.3f\t%.2f\t\n", r.Context, r.Batch, r.Factor, r.Micros, r.Fraction, r.Speedup)
	}
	return t.Flush()
}
