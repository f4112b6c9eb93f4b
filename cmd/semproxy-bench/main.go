// Command semproxy-bench measures semproxy: compression, decoding, the page plane and the proxy, each beside the raw parts that it is
// made of. Run it with --help.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "semproxy-bench:", err)
		stop()
		os.Exit(exit.Code(err)) //nolint:gocritic // stop has been called
	}
}

// run is the whole program, callable from a test.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

//go:generate go test . -run ^TestTheManualHasEveryBenchmark$ -update-reference

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "semproxy-bench",
		Short: "Measure semproxy beside the raw parts that it is made of",
		Long: `Measure how fast pages are compressed and attended to, and what the page plane and the proxy cost, each beside the raw parts in the
same run.

Exit codes: 1 failed, 2 usage, 3 refused, 4 unavailable.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.UsageError{Err: err} })
	root.AddCommand(newPageCommand(), newDecodeCommand(), newCodecsCommand(), newPlaneCommand(), newProxyCommand(), newProxyEngineCommand(), newScaleCommand(), newScaleNATSCommand())
	return root
}
