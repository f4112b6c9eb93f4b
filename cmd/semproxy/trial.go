package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
)

// trialArgs are the arguments of the hidden command trial, with the configuration of this process; nil where this process is not
// "semproxy serve", which a trial is started like.
func trialArgs() []string {
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		return nil
	}
	return append([]string{"trial"}, os.Args[2:]...)
}

// newTrialCommand is for sidecar.Options.Trial alone.
func newTrialCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "trial", Short: "Work on one page of standard input and keep nothing (used by serve)", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Where memory runs out, this process goes and not the sidecar.
			_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
			loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
			if err != nil {
				return fmt.Errorf("configuration:\n%w", err)
			}
			return sidecar.TryPage(cmd.Context(), &loaded.Config, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	config.RegisterFlags(cmd.Flags())
	return cmd
}
