package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy-bench/proxybench"
	"github.com/semproxy/semproxy/cmd/semproxy-bench/scalebench"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// scaleFlags are the flags of "semproxy-bench scale".
type scaleFlags struct {
	o       scalebench.Options
	plan    scalebench.Plan
	doc     string
	inside  bool
	noSpace bool
	output  string
}

func newScaleCommand() *cobra.Command {
	f := scaleFlags{plan: scalebench.DefaultPlan()}
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure one, two and four sidecars, and simulate 1 to 1,000 nodes",
		Long: `Measure sidecars in one queue group between a NATS and a Redis of three servers each, all of them processes of this machine: pages a
second, 99th percentile, and the processor time and bytes that a page takes of each part. Where the system allows it (Linux, as
root), each NATS and Redis server has a network namespace of its own; else all share the loopback.

From what a page took with one sidecar, the measured sizes are predicted, and 1 to 1,000 nodes are simulated event by event, in
four ways to wire them: tokens a second, bandwidth, what saturates and where. The simulation depends on the seed and on what was
measured, nothing else. It needs redis-server.`,
		Example: "  semproxy-bench scale\n  semproxy-bench scale --doc docs/explanation/scale.md\n  semproxy-bench scale --sidecars 1,2 --time 2s --nodes 1,10,100 --json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fl, d := cmd.Flags(), &f.plan.Deployment
	fl.StringVar(&f.o.Semproxy, "semproxy", "", "semproxy's program; empty: the one beside this, else in PATH")
	fl.StringVar(&f.o.Self, "nats", "", "this program, which also is the NATS servers")
	_ = fl.MarkHidden("nats") // the flag exists
	fl.BoolVar(&f.inside, "inside", false, "this process has a network namespace of its own")
	_ = fl.MarkHidden("inside") // the flag exists
	fl.BoolVar(&f.noSpace, "no-namespaces", false, "share the loopback")
	fl.IntSliceVar(&f.o.Sidecars, "sidecars", []int{1, 2, 4}, "numbers of sidecars to measure")
	fl.IntVar(&f.o.Clients, "clients", 8, "pages under way at once")
	fl.IntVar(&f.o.SidecarCores, "sidecar-cores", 1, "cores that each measured sidecar may use")
	fl.DurationVar(&f.o.Time, "time", 8*time.Second, "how long each size is measured")
	fl.IntSliceVar(&f.plan.Nodes, "nodes", f.plan.Nodes, "numbers of nodes to simulate")
	fl.Float64Var(&f.plan.Seconds, "seconds", f.plan.Seconds, "simulated seconds of each size that count; half as many before them")
	fl.Uint64Var(&f.plan.Seed, "seed", f.plan.Seed, "seed of the simulation")
	fl.Float64Var(&d.NodeTokens, "node-tokens", d.NodeTokens, "tokens a second that a simulated node sends to be compressed")
	fl.IntVar(&d.TokenBytes, "token-bytes", d.TokenBytes, "bytes of K and V of a token")
	fl.IntVar(&d.NodeCores, "node-cores", d.NodeCores, "cores of a simulated node for its sidecar")
	fl.IntVar(&d.NATSCores, "nats-cores", d.NATSCores, "cores of each simulated NATS server")
	fl.Float64Var(&d.LinkBits, "link", d.LinkBits, "bits a second of every simulated machine, each way")
	fl.IntVar(&d.GroupNodes, "group-nodes", d.GroupNodes, "simulated nodes for each Redis cluster, where tenants are hashed over several")
	fl.StringVar(&f.doc, "doc", "", "Markdown file to write, with a picture (.svg) beside it")
	show.Flag(cmd, &f.output)
	show.JSONFlag(cmd, &f.output)
	return cmd
}

func (f *scaleFlags) run(cmd *cobra.Command) (err error) {
	if f.o.Self == "" {
		if f.o.Self, err = os.Executable(); err != nil {
			return err
		}
	}
	if f.o.Semproxy, err = findSemproxy(f.o.Semproxy, f.o.Self); err != nil {
		return err
	}
	if f.inside {
		return f.measureInside(cmd)
	}
	signal.Ignore(syscall.SIGPIPE) // a reader that leaves early does not leave the processes behind
	machine := proxybench.ThisMachine()
	rep := &scalebench.Report{
		Machine: fmt.Sprintf("%s/%s, %d cores (%s)", machine.OS, machine.Arch, machine.Cores, machine.Processor), Load: machine.Load,
		When: time.Now().UTC().Format(time.DateOnly), Plan: f.plan,
	}
	if err := f.measure(cmd, rep); err != nil {
		return err
	}
	if err := rep.Simulate(cmd.Context()); err != nil {
		return err
	}
	if f.doc != "" {
		picture := strings.TrimSuffix(f.doc, ".md") + ".svg"
		if err := errors.Join(writeWith(f.doc, rep.WriteMarkdown), writeWith(picture, rep.WriteSVG)); err != nil {
			return err
		}
	}
	return show.As(cmd.OutOrStdout(), f.output, rep, rep.WriteTables)
}

func writeWith(name string, write func(io.Writer) error) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(file), file.Close())
}

// measure measures in a network namespace of its own, where there can be one.
func (f *scaleFlags) measure(cmd *cobra.Command, rep *scalebench.Report) error {
	said := &lineWriter{w: cmd.ErrOrStderr()}
	note := func(r *scalebench.Row) {
		fmt.Fprintf(said, "measured: %s, %s, %s at once: %.1f pages/s\n", r.Work, show.Plural(r.Sidecars, "sidecar"), show.Plural(r.Clients, "page"), r.Pages)
		rep.Take(r)
	}
	args := []string{"scale", "--inside", "--semproxy", f.o.Semproxy, "--nats", f.o.Self, "--clients", fmt.Sprint(f.o.Clients), "--time", f.o.Time.String(),
		"--sidecar-cores", fmt.Sprint(f.o.SidecarCores), "--sidecars", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(f.o.Sidecars)), ","), "[]")}
	why := errors.New("not wanted")
	var child *exec.Cmd
	if !f.noSpace {
		child, why = scalebench.Namespaced(f.o.Self, args...)
	}
	if why != nil {
		rep.WhyNot = why.Error()
		return f.inDirectory(func() error { return scalebench.Measure(cmd.Context(), f.o, func(r scalebench.Row) { note(&r) }) })
	}
	rep.Namespaces = true
	child.Stderr = said
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // it stops its servers before it ends
		select {
		case <-cmd.Context().Done():
			_ = child.Process.Signal(syscall.SIGTERM)
		case <-ended:
		}
	}()
	rows := json.NewDecoder(out)
	for {
		var r scalebench.Row
		if err := rows.Decode(&r); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			_ = child.Process.Signal(syscall.SIGTERM)
			return errors.Join(err, child.Wait())
		}
		note(&r)
	}
	return child.Wait()
}

// lineWriter is written to by this process and by what a child says.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lineWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// measureInside is measure in the namespace: a row is a line of JSON.
func (f *scaleFlags) measureInside(cmd *cobra.Command) error {
	f.o.Namespaces = true
	rows := json.NewEncoder(cmd.OutOrStdout())
	return f.inDirectory(func() error {
		return scalebench.Measure(cmd.Context(), f.o, func(r scalebench.Row) { _ = rows.Encode(r) })
	})
}

func (f *scaleFlags) inDirectory(do func() error) (err error) {
	if f.o.Dir, err = os.MkdirTemp("", "semproxy-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(f.o.Dir)) }()
	return do()
}

// newScaleNATSCommand is a NATS server of "semproxy-bench scale".
func newScaleNATSCommand() *cobra.Command {
	var o scalebench.NATSOptions
	cmd := &cobra.Command{
		Use: "scale-nats", Short: "Serve a NATS server of semproxy-bench scale", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return scalebench.ServeNATS(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.Name, "name", "", "its name")
	cmd.Flags().StringVar(&o.Host, "host", "127.0.0.1", "address")
	cmd.Flags().IntVar(&o.Port, "port", 0, "for clients")
	cmd.Flags().IntVar(&o.ClusterPort, "cluster-port", 0, "for the other servers")
	cmd.Flags().IntVar(&o.LeafPort, "leaf-port", 0, "for leaf nodes")
	cmd.Flags().StringSliceVar(&o.Remotes, "remotes", nil, "URLs of servers to join as a leaf node")
	cmd.Flags().StringSliceVar(&o.Routes, "routes", nil, "URLs of all servers")
	return cmd
}
