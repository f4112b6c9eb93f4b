package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/config"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the sidecar until SIGTERM, then drain",
		Long: `Serve pages over NATS until the process is told to stop. On SIGTERM no new page is taken, every accepted page is
finished and answered (drainTimeout at most), then the process ends. With --proxy-listen it also stands in front of the
engine as an HTTP proxy (docs/proxy.md).

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
			s, err := startService(cmd.Context(), &loaded.Config, serviceOptions{LogOutput: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	config.RegisterFlags(cmd.Flags())
	return cmd
}

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration"}
	show := &cobra.Command{
		Use:   "print",
		Short: "Print the effective configuration and where each value came from",
		Long:  "Print the configuration that serve would run with, as YAML that serve reads again. Credentials in URLs are redacted.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			return loaded.Print(cmd.OutOrStdout())
		},
	}
	config.RegisterFlags(show.Flags())
	cmd.AddCommand(show)
	return cmd
}
