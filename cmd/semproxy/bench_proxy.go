package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/proxybench"
)

func newBenchProxyCommand() *cobra.Command {
	var o proxybench.Options
	var nginx, caddy string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Measure the proxy beside nginx, Caddy and no proxy at all",
		Long: `Start an engine's stand-in, "semproxy serve" with the request plane, nginx and Caddy as processes on loopback and
measure what each way costs, in turns within one run:

  throughput    requests per second with so many kept connections, small answers; "of direct" is the median over the turns
  half load     latency at half of the requests per second that semproxy can answer here, "added" to the direct way's
  first byte    of a stream of events, one request at a time
  idle streams  memory of streams that have begun and wait (Linux)

Client, proxy and engine share the machine. With --think 0s the processor is what limits, and a proxy takes from the
client and the engine what it needs for itself; with the time of a real answer the connections limit, as with real engines.
semproxy resolves an API key, reads and changes the JSON body, decides by policy and gate, counts tokens and keeps a
record; nginx and Caddy only forward. Programs that are not found are left out:

  apt-get install nginx
  go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.10.2`,
		Example: "  semproxy bench proxy\n  semproxy bench proxy --connections 64 --think 0s,20ms --time 3s --streams 1000 --caddy /tmp/caddy --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			out := cmd.OutOrStdout()
			if o.Semproxy == "" {
				if o.Semproxy, err = os.Executable(); err != nil {
					return err
				}
			}
			note := func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
			o.Nginx, o.Caddy = lookUp(nginx, note), lookUp(caddy, note)
			if most := proxybench.MostStreams(); o.Streams > most && !cmd.Flags().Changed("streams") {
				note("%d idle streams instead of %d: a process may have %d files open", most, o.Streams, proxybench.ThisMachine().OpenFiles)
				o.Streams = most
			}
			if o.Dir, err = os.MkdirTemp("", "semproxy-bench-"); err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(o.Dir) }()
			machine := proxybench.ThisMachine()
			if asJSON {
				enc := json.NewEncoder(out)
				_ = enc.Encode(map[string]any{"machine": machine})
				return proxybench.Run(cmd.Context(), o, func(r proxybench.Row) { _ = enc.Encode(r) })
			}
			fmt.Fprintf(out, "%s/%s, %d cores (%s), load %s, %s per measurement and way\n", machine.OS, machine.Arch, machine.Cores, machine.Processor, machine.Load, o.Time)
			return proxyTable(out, func(report func(proxybench.Row)) error { return proxybench.Run(cmd.Context(), o, report) })
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Connections, "connections", []int{64, 512}, "connections at once")
	f.DurationSliceVar(&o.Think, "think", []time.Duration{0, 20 * time.Millisecond, 200 * time.Millisecond}, "how long the engine takes for an answer")
	f.DurationVar(&o.Time, "time", 6*time.Second, "how long each measurement takes, for each way")
	f.IntVar(&o.Streams, "streams", 10000, "idle streams; 0: none")
	f.DurationVar(&o.Hold, "hold", 10*time.Second, "how long streams are idle")
	f.IntVar(&o.PromptBytes, "prompt-bytes", 1000, "length of a request's prompt")
	f.StringVar(&nginx, "nginx", "nginx", "nginx's program")
	f.StringVar(&caddy, "caddy", "caddy", "Caddy's program")
	f.StringVar(&o.Semproxy, "semproxy", "", "semproxy's program; empty: this one")
	f.BoolVar(&asJSON, "json", false, "print a JSON object per measurement")
	return cmd
}

// lookUp finds a program; empty when there is none.
func lookUp(name string, note func(format string, args ...any)) string {
	if name == "" {
		return ""
	}
	path, err := exec.LookPath(name)
	if err != nil {
		note("%s is left out: %v", name, err)
		return ""
	}
	return path
}

// proxyTable prints rows as they come, a table for each kind of measurement.
func proxyTable(out io.Writer, run func(report func(proxybench.Row)) error) error {
	kind := ""
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	err := run(func(r proxybench.Row) {
		if r.Measure != kind {
			_ = w.Flush()
			kind = r.Measure
			fmt.Fprintf(w, "\n%s\t\t\t\t\t\t\t\t\t\t\n", kind)
			if kind == proxybench.IdleStreams {
				fmt.Fprintln(w, "way\tstreams\tMiB before\twhen open\tafter being idle\tKiB per stream\t")
			} else {
				fmt.Fprintln(w, "way\tconnections\tengine\trequests/s\tof direct\tp50\tp99\tadded p50\tadded p99\tCPU per request\t")
			}
		}
		if kind == proxybench.IdleStreams {
			mib := func(n int64) float64 { return float64(n) / (1 << 20) }
			fmt.Fprintf(w, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t\n", r.Path, r.Streams, mib(r.Before), mib(r.Open), mib(r.After), float64(r.PerStream)/1024)
			return
		}
		rate, ratio, added50, added99, cpu := "", "", "", "", ""
		if r.Rate > 0 {
			rate, ratio = fmt.Sprintf("%.0f", r.Rate), fmt.Sprintf("%.1f %%", 100*r.Ratio)
		}
		if r.Path != proxybench.Direct {
			added50, added99 = short(r.AddedP50), short(r.AddedP99)
		}
		if r.CPU > 0 {
			cpu = short(r.CPU)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.Path, r.Connections, r.Think, rate, ratio, short(r.P50), short(r.P99), added50, added99, cpu)
	})
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	return err
}

// newBenchProxyEngineCommand is the process that "bench proxy" measures against.
func newBenchProxyEngineCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "proxy-engine", Short: "Serve the engine's stand-in of bench proxy", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			listener, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			return proxybench.Engine(cmd.Context(), listener)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "host:port")
	return cmd
}
