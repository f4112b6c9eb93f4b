package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the release build with -ldflags "-X main.version=...".
var version = ""

// run is the whole program, callable from a test. The error is for a person: it names what to repair.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := &cobra.Command{
		Use:   "semproxy",
		Short: "Compress KV-cache pages by meaning, per tenant, with the loss measured",
		Long: `semproxy is a sidecar beside a GPU inference engine. It receives KV-cache pages over NATS, merges the tokens
that mean the same as the tenant's policy says, and writes smaller pages back with the metadata for
proportional attention. Every page's loss is measured; every page is one trace.

Start with "semproxy demo": it runs everything in this process on real pages.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(newDemoCommand(), newServeCommand(), newCompressCommand(), newEvalCommand(), newPolicyCommand(), newKeysCommand(), newConfigCommand(), newGPUCommand(), newJobsCommand(), newBenchCommand(), newProveCommand(), newNATSConfigCommand(), newInjectCommand(), newVersionCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "semproxy", versionString())
			return err
		},
	}
}

// versionString is the release's version, else what the module system knows of the build.
func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
