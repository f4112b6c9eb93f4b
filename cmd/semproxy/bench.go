package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/planebench"
	"github.com/semproxy/semproxy/policy"
)

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure parts of semproxy on this machine, beside their raw parts"}
	cmd.AddCommand(newBenchPlaneCommand())
	return cmd
}

func newBenchPlaneCommand() *cobra.Command {
	var sizes []string
	var o planebench.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plane",
		Short: "Measure pages inline, in shared memory and as jobs, beside bare NATS and bare pread",
		Long: `Send pages through the page plane in this process (an embedded NATS server, senders over TCP on loopback) and
measure bytes per second, latency and CPU time, beside the raw parts in the same run. Nothing is compressed: what is
measured is the plane. "of raw" is the share of the raw path's bytes per second, at the same size and concurrency, and
"CPU of raw" how much of this path's CPU time the raw one needs for as many bytes. The paths take turns of a tenth of the
time, so that other work on the machine slows all alike.

  inline              the page in the message and back, by the Go client; raw: a bare NATS responder
  job                 until it is kept, and until its outcome is told; raw: a bare publish to a JetStream file stream
  page in place       a descriptor of a page that lies in shared memory already, and a short reply; raw: pread
  shared, Go client   the page written into shared memory as well; raw: pwrite and pread`,
		Example: "  semproxy bench plane\n  semproxy bench plane --sizes 1MiB,32MiB --concurrency 1,8 --time 3s --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			for _, text := range sizes {
				var n policy.ByteSize
				if err := n.UnmarshalText([]byte(text)); err != nil {
					return fmt.Errorf("--sizes: %q: %w", text, err)
				}
				o.Sizes = append(o.Sizes, int(n))
			}
			if o.Dir, err = os.MkdirTemp("", "semproxy-bench-"); err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(o.Dir) }()
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				return planebench.Run(cmd.Context(), o, func(r planebench.Row) { _ = enc.Encode(r) })
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s, %d cores, %s per measurement\n", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), o.Time)
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "page\tat once\tGiB/s\tp50\tp99\tCPU s/GiB\tof raw\tCPU of raw\t  path\t")
			err = planebench.Run(cmd.Context(), o, func(r planebench.Row) {
				share, cpu := "", ""
				if r.Raw != "" {
					share, cpu = fmt.Sprintf("%.0f %%", 100*r.Share), fmt.Sprintf("%.0f %%", 100*r.CPUShare)
				}
				fmt.Fprintf(w, "%s\t%d\t%.2f\t%s\t%s\t%.2f\t%s\t%s\t  %s\t\n", size(r.Size), r.Concurrency, r.Bytes/(1<<30), short(r.P50), short(r.P99), r.CPU, share, cpu, r.Path)
			})
			if flushed := w.Flush(); err == nil {
				err = flushed
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&sizes, "sizes", []string{"64KiB", "512KiB", "2MiB", "7MiB", "32MiB"}, "bytes of a page; those over 8 MiB go through shared memory only")
	f.IntSliceVar(&o.Concurrency, "concurrency", []int{1, 4}, "pages under way at once")
	f.DurationVar(&o.Time, "time", time.Second, "how long each measurement takes")
	f.BoolVar(&asJSON, "json", false, "print a JSON object per measurement")
	return cmd
}
