package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/sidecar"
	"github.com/semproxy/semproxy/sidecar/config"
	"github.com/semproxy/semproxy/transport/jobs"
)

const jobsHelp = `
The NATS system is that of the configuration (--config, --nats-url ..., as for serve). Of a sidecar that runs a server of
its own, give --jobs-dir: whoever may read that folder may look after its jobs, while the sidecar runs.`

func newJobsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "Look after durable jobs and dead letters",
		Long: `A durable job is a page whose sender does not wait; NATS JetStream keeps it until its cores are stored. A page that can
never succeed becomes a dead letter, with the reason. These commands show them, and send dead letters again once
what was wrong is repaired.
` + jobsHelp,
	}
	cmd.AddCommand(newJobsListCommand(), newLettersCommand(),
		newLetterCommand("replay", "Send dead letters again", "sent again",
			"Send dead letters again as jobs of the same id, and remove them. A page that is still bad becomes a dead letter again.", (*jobs.Admin).Replay),
		newLetterCommand("drop", "Delete dead letters", "deleted", "Delete dead letters for good.", (*jobs.Admin).Drop))
	return cmd
}

func newJobsListCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List what waits, is worked on and failed, by tenant",
		Long:    "List the jobs of every tenant: how many wait, are worked on and are dead letters, and their bytes.\n" + jobsHelp,
		Example: "  semproxy jobs list --nats-url nats://nats:4222 --nats-creds-file sidecar.creds\n  semproxy jobs list --jobs-dir /var/lib/semproxy/jobs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdmin(cmd, func(ctx context.Context, o *jobs.Admin) error {
				all, err := o.States(ctx)
				if err != nil {
					return err
				}
				if output != show.Table {
					return show.Value(cmd.OutOrStdout(), output, all)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "TENANT\tWAITING\tIN HAND\tBYTES\tLIMIT\tDEAD\tDEAD BYTES")
				for _, s := range all {
					fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", s.Tenant, s.Waiting, s.InHand,
						show.Size(int(s.WaitingBytes)), show.Size(int(s.MaxBytes)), s.Dead, show.Size(int(s.DeadBytes)))
				}
				return w.Flush()
			})
		},
	}
	show.Flag(cmd, &output)
	show.JSONFlag(cmd, &output)
	config.RegisterFlags(cmd.Flags())
	return cmd
}

func newLettersCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "letters TENANT", Short: "List the dead letters of a tenant, with their reasons",
		Long:    "List a tenant's dead letters, the oldest first. A partial one holds only the head of its page and cannot be sent again.\n" + jobsHelp,
		Example: "  semproxy jobs letters acme --jobs-dir /var/lib/semproxy/jobs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withAdmin(cmd, func(ctx context.Context, o *jobs.Admin) error {
				all, err := o.DeadLetters(ctx, args[0])
				if err != nil {
					return err
				}
				if output != show.Table {
					return show.Value(cmd.OutOrStdout(), output, all)
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NUMBER\tJOB\tTIME\tTRIES\tBYTES\tCODE\tREASON")
				for _, l := range all {
					kept := show.Size(int(l.Bytes))
					if l.Partial {
						kept += " (head)"
					}
					fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", l.Number, l.Job, l.Time.UTC().Format(time.RFC3339), l.Tries, kept, l.Code, l.Reason)
				}
				return w.Flush()
			})
		},
	}
	show.Flag(cmd, &output)
	show.JSONFlag(cmd, &output)
	config.RegisterFlags(cmd.Flags())
	return cmd
}

// lettersDone is what became of dead letters.
type lettersDone struct {
	Letters int `json:"letters"`
	Done    int `json:"done"`
}

// newLetterCommand does something to dead letters one by one.
func newLetterCommand(name, short, done, long string, do func(*jobs.Admin, context.Context, string, uint64) error) *cobra.Command {
	var all bool
	var output string
	cmd := &cobra.Command{
		Use: name + " TENANT [NUMBER...]", Short: short,
		Long:    long + " The numbers are those of \"semproxy jobs letters\"; --all takes every letter.\n" + jobsHelp,
		Example: "  semproxy jobs " + name + " acme 3 4 --jobs-dir /var/lib/semproxy/jobs\n  semproxy jobs " + name + " acme --all --nats-url nats://nats:4222",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 1) {
				return errors.New("give the numbers of letters, or --all")
			}
			numbers := make([]uint64, 0, len(args))
			for _, a := range args[1:] {
				n, err := strconv.ParseUint(a, 10, 64)
				if err != nil {
					return fmt.Errorf("%q is not the number of a letter: see \"semproxy jobs letters %s\"", a, args[0])
				}
				numbers = append(numbers, n)
			}
			return withAdmin(cmd, func(ctx context.Context, o *jobs.Admin) error {
				if all {
					letters, err := o.DeadLetters(ctx, args[0])
					if err != nil {
						return err
					}
					for _, l := range letters {
						numbers = append(numbers, l.Number)
					}
				}
				var faults []error
				for _, n := range numbers {
					if err := do(o, ctx, args[0], n); err != nil {
						faults = append(faults, err)
					}
				}
				r := lettersDone{Letters: len(numbers), Done: len(numbers) - len(faults)}
				err := show.As(cmd.OutOrStdout(), output, r, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%d of %d letters %s\n", r.Done, r.Letters, done)
					return err
				})
				return errors.Join(append(faults, err)...)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every dead letter of the tenant")
	show.Flag(cmd, &output)
	config.RegisterFlags(cmd.Flags())
	return cmd
}

// withAdmin connects as an operator.
func withAdmin(cmd *cobra.Command, do func(context.Context, *jobs.Admin) error) error {
	loaded, err := config.Load(config.Sources{Env: os.Environ(), Flags: cmd.Flags()})
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	nc, err := sidecar.ConnectOperator(&loaded.Config)
	if err != nil {
		return err
	}
	defer nc.Close()
	admin, err := jobs.NewAdmin(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Minute)
	defer cancel()
	return do(ctx, admin)
}
