package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/proxybench"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

func newProxyCommand() *cobra.Command {
	var o proxybench.Options
	var nginx, caddy string
	var output string
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
client and the engine what it needs for itself; with the time of a real answer the connections limit, as with real engines
(a turn then takes at least four answers' time).
semproxy resolves an API key, reads and changes the JSON body, decides by policy and gate, counts tokens and keeps a
record; nginx and Caddy only forward. Programs that are not found are left out:

  apt-get install nginx
  go install github.com/caddyserver/caddy/v2/cmd/caddy@v2.10.2`,
		Example: "  semproxy-bench proxy\n  semproxy-bench proxy --connections 64 --think 0s,20ms --time 3s --streams 1000 --caddy /tmp/caddy --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			signal.Ignore(syscall.SIGPIPE) // a reader that leaves early does not leave the processes behind
			out := cmd.OutOrStdout()
			if o.Engine == "" {
				if o.Engine, err = os.Executable(); err != nil {
					return err
				}
			}
			if o.Semproxy, err = findSemproxy(o.Semproxy, o.Engine); err != nil {
				return err
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
			if output != show.Table {
				each := show.Rows(out, output)
				_ = each(map[string]any{"machine": machine})
				return proxybench.Run(cmd.Context(), o, func(r proxybench.Row) { _ = each(r) })
			}
			fmt.Fprintf(out, "%s/%s, %d cores (%s), load %s, %s per measurement and way\n", machine.OS, machine.Arch, machine.Cores, machine.Processor, machine.Load, o.Time)
			return proxyTable(out, func(report func(proxybench.Row)) error { return proxybench.Run(cmd.Context(), o, report) })
		},
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Connections, "connections", []int{64, 512}, "connections at once")
	f.DurationSliceVar(&o.Think, "think", []time.Duration{0, 20 * time.Millisecond, time.Second}, "how long the engine takes for an answer")
	f.DurationVar(&o.Time, "time", 6*time.Second, "how long each measurement takes, for each way")
	f.IntVar(&o.Streams, "streams", 10000, "idle streams; 0: none")
	f.DurationVar(&o.Hold, "hold", 10*time.Second, "how long streams are idle")
	f.IntVar(&o.PromptBytes, "prompt-bytes", 1000, "length of a request's prompt")
	f.StringVar(&nginx, "nginx", "nginx", "nginx's program")
	f.StringVar(&caddy, "caddy", "caddy", "Caddy's program")
	f.StringVar(&o.Semproxy, "semproxy", "", "semproxy's program; empty: the one beside this, else in PATH")
	f.StringVar(&o.Before, "before", "", "an earlier semproxy's program, measured beside them; empty: none")
	f.StringVar(&o.Engine, "engine", "", "this program, which also is the engine's stand-in")
	_ = f.MarkHidden("engine") // the flag exists
	show.Flag(cmd, &output)
	show.JSONFlag(cmd, &output)
	return cmd
}

// findSemproxy finds semproxy's program: the one that is named, else the one beside this program, else the one in PATH.
func findSemproxy(name, mine string) (string, error) {
	if name != "" {
		return name, nil
	}
	if beside := filepath.Join(filepath.Dir(mine), "semproxy"); isProgram(beside) {
		return beside, nil
	}
	path, err := exec.LookPath("semproxy")
	if err != nil {
		return "", fmt.Errorf("semproxy is not beside this program: name it with --semproxy: %w", err)
	}
	return path, nil
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
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
	const loads, idle = "%10s %12v %7v %11s %10s %8s %8s %10s %10s %16s\n", "%10s %8v %11s %10s %17s %15s\n"
	kind := ""
	return run(func(r proxybench.Row) {
		if r.Measure != kind {
			kind = r.Measure
			fmt.Fprintf(out, "\n%s\n", kind)
			if kind == proxybench.IdleStreams {
				fmt.Fprintf(out, idle, "way", "streams", "MiB before", "when open", "after being idle", "KiB per stream")
			} else {
				fmt.Fprintf(out, loads, "way", "connections", "engine", "requests/s", "of direct", "p50", "p99", "added p50", "added p99", "CPU per request")
			}
		}
		if kind == proxybench.IdleStreams {
			mib := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }
			fmt.Fprintf(out, idle, r.Path, r.Streams, mib(r.Before), mib(r.Open), mib(r.After), fmt.Sprintf("%.1f", float64(r.PerStream)/1024))
			return
		}
		rate, ratio, added50, added99, cpu := "", "", "", "", ""
		if r.Rate > 0 {
			rate, ratio = fmt.Sprintf("%.0f", r.Rate), fmt.Sprintf("%.1f %%", 100*r.Ratio)
		}
		if r.Path != proxybench.Direct {
			added50, added99 = signed(r.AddedP50), signed(r.AddedP99)
		}
		if r.CPU > 0 {
			cpu = show.Duration(r.CPU)
		}
		fmt.Fprintf(out, loads, r.Path, r.Connections, r.Think, rate, ratio, show.Duration(r.P50), show.Duration(r.P99), added50, added99, cpu)
	})
}

// signed is short for a difference.
func signed(d time.Duration) string {
	if d < 0 {
		return "-" + show.Duration(-d)
	}
	return show.Duration(d)
}

// newProxyEngineCommand is the process that "semproxy-bench proxy" measures against.
func newProxyEngineCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use: "proxy-engine", Short: "Serve the engine's stand-in of semproxy-bench proxy", Args: cobra.NoArgs, Hidden: true,
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
