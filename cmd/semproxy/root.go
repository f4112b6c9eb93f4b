package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/semproxy/semproxy/cmd/semproxy/demo"
	"github.com/semproxy/semproxy/cmd/semproxy/evaluate"
	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/prove"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
)

// Set by the release build with -ldflags "-X main.version=... -X main.commit=... -X main.date=...".
var version, commit, date = "", "", ""

// run is the whole program, callable from a test. The error is for a person: it names what to repair.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

//go:generate go test . -run ^TestTheManualHasEveryCommand$ -update-reference

// newRoot is the command with all others below it.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "semproxy",
		Short: "Compress KV-cache pages by meaning, per tenant, with the loss measured",
		Long: `semproxy is a sidecar beside a GPU inference engine. It receives KV-cache pages over NATS, merges the tokens
that mean the same as the tenant's policy says, and writes smaller pages back with the metadata for
proportional attention. Every page's loss is measured; every page is one trace.

Start with "semproxy demo": it runs everything in this process on real pages. Look at a running sidecar in a browser, at
the address of its admin listener.

Exit codes: 1 failed (a limit was not held), 2 usage, 3 refused (a file, a policy or a page is wrong), 4 unavailable.`,
		SilenceUsage: true, SilenceErrors: true, Version: versionString(),
	}
	root.SetVersionTemplate("semproxy {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit.UsageError{Err: err} })
	group(root, "look", "Look at it", demo.NewCommand(versionString()), newInspectCommand(), evaluate.NewCommand(), evaluate.NewCalibrateCommand(), newCompressCommand())
	group(root, "run", "Run it", newServeCommand(), newPolicyCommand(), newKeysCommand(), newConfigCommand(), newJobsCommand())
	group(root, "check", "Check it", newDoctorCommand(), prove.NewCommand(), newGPUCommand(), newTrialCommand())
	group(root, "install", "Install it", newInjectCommand(), newNATSConfigCommand(), newManCommand(), newVersionCommand())
	return root
}

func group(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title + ":"})
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// newManCommand writes manual pages, for packages.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write manual pages into a folder", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "SEMPROXY", Section: "1", Source: "semproxy"}, args[0])
		},
	}
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := readBuild()
			return show.As(cmd.OutOrStdout(), output, b, b.write)
		},
	}
	show.Flag(cmd, &output)
	return cmd
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

// build is what "semproxy version" says; its JSON form is stable.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Date     string `json:"date"` // of the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// readBuild takes what the release build set, else what go build noted of the repository.
func readBuild() *build {
	b := &build{Version: versionString(), Commit: commit, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && commit == "":
			b.Commit = s.Value
		case s.Key == "vcs.time" && date == "":
			b.Date = s.Value
		}
	}
	return b
}

func (b *build) write(w io.Writer) error {
	unknown := func(s string) string { return cmp.Or(s, "unknown") }
	_, err := fmt.Fprintf(w, "semproxy %s\ncommit %s\ndate %s\n%s %s\n", b.Version, unknown(b.Commit), unknown(b.Date), b.Go, b.Platform)
	return err
}
