package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/eval/embedded"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar until SIGTERM, then drain",
		Long: `Serve pages over NATS until the process is told to stop. On SIGTERM no new page is taken, every accepted page is
finished and answered (drainTimeout at most), then the process ends. With --proxy-listen it also stands in front of the
engine as an HTTP proxy (docs/reference/proxy.md). --planes runs only the proxy, or only what takes pages, so that either
outlives the other.

Values come from the defaults, then the file of --config, then the environment, then flags; the last one wins.
"semproxy config print" shows what is in force and where each value came from.`,
		Example: `  semproxy serve --config /etc/semproxy/semproxy.yaml
  SEMPROXY_POLICY_PATH=/etc/semproxy/policy semproxy serve --nats-url nats://nats:4222`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			s, err := sidecar.Start(cmd.Context(), &loaded.Config, sidecar.Options{Version: versionString(), Text: embedded.Page, TextChars: embedded.MaxChars, Trial: trialArgs(), LogOutput: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	config.RegisterFlags(cmd.Flags())
	return cmd
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	var output string
	printed := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration and where each value came from",
		Long: `Print the configuration that serve would run with: as YAML that serve reads again, as a table, or as JSON with the origin of each
value. Credentials in URLs are redacted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			if output == show.YAML {
				return loaded.Print(cmd.OutOrStdout())
			}
			values, err := loaded.Values()
			if err != nil {
				return err
			}
			return show.As(cmd.OutOrStdout(), output, values, func(w io.Writer) error { return configTable(w, values) })
		},
	}
	show.Flag(printed, &output)
	output = show.YAML // what serve reads
	printed.Flags().Lookup("output").DefValue = show.YAML
	config.RegisterFlags(printed.Flags())
	cmd.AddCommand(printed)
	return cmd
}

func configTable(w io.Writer, values []config.Value) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tVALUE\tORIGIN")
	for _, v := range values {
		text, err := json.Marshal(v.Value)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", v.Key, text, v.Origin)
	}
	return t.Flush()
}
