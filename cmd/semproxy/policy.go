package main

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/cmd/semproxy/exit"
	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/schema"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
)

// policyPathEnv names the policy of the subcommands when no path is given: it is the service's own variable, so that a command run
// beside the service sees what the service sees.
const policyPathEnv = "SEMPROXY_POLICY_PATH"

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and explain the rules that decide how a tenant's pages are compressed",
		Long: `A policy is one or more YAML files: named profiles, and per tenant a list of rules of which the
first match wins. These commands read the files exactly as the service does, and change nothing.

Where no path is given, the service's own environment variable ` + policyPathEnv + ` names the file or directory.`,
	}
	cmd.AddCommand(newPolicyCheckCommand(), newPolicyExplainCommand(), newPolicySchemaCommand())
	return cmd
}

func newPolicyCheckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check [PATH...]",
		Short: "Check policy files; exit non-zero when one has a mistake",
		Long: `Check policy files and directories together, as one policy. Every mistake is printed at once, with file,
line and path. Warnings are printed too, and do not make the command fail. Then follows a line per tenant.`,
		Example: `  semproxy policy check configs/policies/example.yaml
  semproxy policy check /etc/semproxy/policies
  ` + policyPathEnv + `=tenants.yaml semproxy policy check`,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := policyPaths(args)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			set, problems, err := compilePolicy(paths)
			if err != nil && len(problems) == 0 {
				return err
			}
			r := newPolicyReport(set, problems)
			if err := show.As(out, output, r, r.write); err != nil {
				return err
			}
			return mistakes(problems)
		},
	}
	show.Flag(cmd, &output)
	return cmd
}

func newPolicySchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of policy files",
		Long: `Print the JSON Schema (draft 2020-12) of policy files. Editors complete and check a file whose first line is
  # yaml-language-server: $schema=policy.schema.json`,
		Example:      `  semproxy policy schema > policy.schema.json`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := schema.JSON()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
}

// policyPaths are the paths given, else the one of the environment.
func policyPaths(given []string) ([]string, error) {
	if len(given) > 0 {
		return given, nil
	}
	for _, env := range []string{policyPathEnv, "SEMPROXY_POLICY"} { // the second is an older name of the first
		if path := os.Getenv(env); path != "" {
			return []string{path}, nil
		}
	}
	return nil, exit.UsageError{Err: fmt.Errorf("no policy given: name a file or directory, or set %s", policyPathEnv)}
}

// compilePolicy reads and compiles; problems are those of the content.
func compilePolicy(paths []string) (*policy.Set, []*strict.Error, error) {
	sources, err := watch.LoadFiles(paths...)
	if err != nil {
		return nil, nil, err
	}
	set, err := policy.Compile(sources...)
	return set, strict.Problems(err), err
}

// loadPolicy reads and compiles. Problems of the content go to out, one a line; the error then only counts them.
func loadPolicy(out io.Writer, paths []string) (*policy.Set, error) {
	set, problems, err := compilePolicy(paths)
	if len(problems) == 0 {
		return set, err
	}
	for _, p := range problems {
		fmt.Fprintln(out, p)
	}
	return nil, mistakes(problems)
}

// mistakes is nil where there are none.
func mistakes(problems []*strict.Error) error {
	if len(problems) == 0 {
		return nil
	}
	return exit.RefusedError{Text: fmt.Sprintf("the policy has %s", show.Plural(len(problems), "mistake"))}
}

// completeTenants completes the names of the policy's tenants.
func completeTenants(paths *[]string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		given, err := policyPaths(slices.Compact(slices.Sorted(slices.Values(*paths)))) // cobra has read the flags twice
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		set, _, err := compilePolicy(given)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return set.Tenants(), cobra.ShellCompDirectiveNoFileComp
	}
}

// summary says in a few words what a profile does.
func summary(p *policy.Profile) string {
	if p.Bits > 0 {
		plain := *p
		plain.Bits = 0
		return fmt.Sprintf("%s, in %d bits", summary(&plain), p.Bits)
	}
	switch {
	case p.Method == policy.MethodNone:
		return "keeps every token"
	case p.Threshold != nil:
		return fmt.Sprintf("%s, similarity %v", p.Method, *p.Threshold)
	case !p.Method.Clusters():
		return fmt.Sprintf("%s, ratio %v", p.Method, p.Ratio)
	}
	return fmt.Sprintf("%s, ratio %v, %s", p.Method, p.Ratio, p.Budget)
}
