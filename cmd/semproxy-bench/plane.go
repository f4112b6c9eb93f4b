package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/planebench"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/store/redis"
	"github.com/semproxy/semproxy/store/storebench"
)

func newPlaneCommand() *cobra.Command {
	var sizes []string
	var o planebench.Options
	var output string
	var redisAddr, lmcacheAddr string
	cmd := &cobra.Command{
		Use:   "plane",
		Short: "Measure pages inline, in shared memory, as jobs and in Redis, beside the raw parts",
		Long: `Send pages through the page plane in this process (an embedded NATS server, senders over TCP on loopback) and
measure bytes per second, latency and CPU time, beside the raw parts in the same run. Nothing is compressed: what is
measured is the plane. "of raw" is the share of the raw path's bytes per second, at the same size and concurrency, and
"CPU of raw" how much of this path's CPU time the raw one needs for as many bytes. The paths take turns of a tenth of the
time, so that other work on the machine slows all alike.

  inline              the page in the message and back, by the Go client; raw: a bare NATS responder
  job                 until it is kept, and until its outcome is told; raw: a bare publish to a JetStream file stream
  page in place       a descriptor of a page that lies in shared memory already, and a short reply; raw: pread
  shared, Go client   the page written into shared memory as well; raw: pwrite and pread
  store put, get      with --redis: the shared store beside go-redis with the same tiles, in turns
  lmcache put, get    with --lmcache: LMCache's server beside them, put until it says that it has the object`,
		Example: "  semproxy-bench plane\n  semproxy-bench plane --sizes 1MiB,32MiB --concurrency 1,8 --time 3s --json",
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
			if output != show.Table {
				each := show.Rows(cmd.OutOrStdout(), output)
				report := func(r planebench.Row) { _ = each(r) }
				if err := planebench.Run(cmd.Context(), o, report); err != nil {
					return err
				}
				return benchStore(cmd.Context(), redisAddr, lmcacheAddr, o, report)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s, %d cores, %s per measurement\n", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), o.Time)
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "page\tat once\tGiB/s\tp50\tp99\tCPU s/GiB\tof raw\tCPU of raw\t  path\t")
			report := func(r planebench.Row) {
				share, cpu := "", ""
				if r.Raw != "" {
					share, cpu = fmt.Sprintf("%.0f %%", 100*r.Share), fmt.Sprintf("%.0f %%", 100*r.CPUShare)
				}
				fmt.Fprintf(w, "%s\t%d\t%.2f\t%s\t%s\t%.2f\t%s\t%s\t  %s\t\n", show.Size(r.Size), r.Concurrency, r.Bytes/(1<<30), show.Duration(r.P50), show.Duration(r.P99), r.CPU, share, cpu, r.Path)
			}
			err = planebench.Run(cmd.Context(), o, report)
			if err == nil {
				err = benchStore(cmd.Context(), redisAddr, lmcacheAddr, o, report)
			}
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
	f.StringVar(&lmcacheAddr, "lmcache", "", "with --redis: host:port of LMCache's server, to measure beside it (python -m lmcache.v1.server HOST PORT)")
	f.StringVar(&redisAddr, "redis", "", "host:port of a Redis to measure the store on; its keys are gone after two seconds")
	show.Flag(cmd, &output)
	show.JSONFlag(cmd, &output)
	return cmd
}

// benchStore measures the shared store beside the raw client, with objects of the pages' sizes.
func benchStore(ctx context.Context, addr, peer string, o planebench.Options, report func(planebench.Row)) (err error) {
	if addr == "" && peer == "" {
		return nil
	} else if addr == "" {
		return errors.New("--lmcache: give --redis too, beside which it is measured")
	}
	s, err := redis.Open(redis.Options{Addrs: []string{addr}})
	if err != nil {
		return fmt.Errorf("--redis: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	raw := goredis.NewClient(&goredis.Options{Addr: addr})
	defer func() { err = errors.Join(err, raw.Close()) }()
	const turns = 5
	rawCPU := 0.0 // CPU time of the raw side
	return storebench.Run(ctx, storebench.Options{
		Raw: raw, Store: s, LMCache: peer, Sizes: o.Sizes, Concurrency: o.Concurrency, Rounds: turns, Turn: o.Time / turns,
	}, func(r storebench.Row) {
		row := planebench.Row{
			Path: r.By + " " + r.Op, Size: r.Size, Concurrency: r.Concurrency, Bytes: r.Rate, P50: r.P50, P99: r.P99,
			CPU: r.CPUPerGiB.Seconds(), Raw: "raw redis " + r.Op, Share: r.Ratio,
		}
		if r.By == storebench.ByRaw {
			row.Path, row.Raw, row.Share, rawCPU = row.Raw, "", 0, row.CPU
		} else if row.CPU > 0 {
			row.CPUShare = rawCPU / row.CPU
		}
		report(row)
	})
}
