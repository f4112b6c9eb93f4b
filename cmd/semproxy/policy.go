package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/schema"
	"github.com/semproxy/semproxy/policy/strict"
	"github.com/semproxy/semproxy/policy/watch"
)

// policyEnv names the policy of the subcommands when no path is given; else it is the service's own, so that a command run
// beside the service sees what the service sees.
const (
	policyEnv     = "SEMPROXY_POLICY"
	policyPathEnv = "SEMPROXY_POLICY_PATH"
)

func newPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check and explain the rules that decide how a tenant's pages are compressed",
		Long: `A policy is one or more YAML files: named profiles, and per tenant a list of rules of which the
first match wins. These commands read the files exactly as the service does, and change nothing.

Where no path is given, the environment variable ` + policyEnv + ` names the file or directory, or else
the service's own ` + policyPathEnv + `.`,
	}
	cmd.AddCommand(newPolicyCheckCommand(), newPolicyExplainCommand(), newPolicySchemaCommand())
	return cmd
}

func newPolicyCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [PATH...]",
		Short: "Check policy files; exit non-zero when one has a mistake",
		Long: `Check policy files and directories together, as one policy. Every mistake is printed at once, with file,
line and path. Warnings are printed too, and do not make the command fail. Then follows a line per tenant.`,
		Example: `  semproxy policy check configs/policies/example.yaml
  semproxy policy check /etc/semproxy/policies
  ` + policyEnv + `=tenants.yaml semproxy policy check`,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			paths, err := policyPaths(args)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			set, err := loadPolicy(out, paths)
			if err != nil {
				return err
			}
			return printCheck(out, set)
		},
	}
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
	for _, env := range []string{policyEnv, policyPathEnv} {
		if path := os.Getenv(env); path != "" {
			return []string{path}, nil
		}
	}
	return nil, fmt.Errorf("no policy given: name a file or directory, or set %s", policyEnv)
}

// loadPolicy reads and compiles. Problems of the content go to out, one a line; the error then only counts them.
func loadPolicy(out io.Writer, paths []string) (*policy.Set, error) {
	sources, err := watch.LoadFiles(paths...)
	if err != nil {
		return nil, err
	}
	set, err := policy.Compile(sources...)
	if problems := strict.Problems(err); len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(out, p)
		}
		return nil, fmt.Errorf("the policy has %s", plural(len(problems), "mistake"))
	}
	return set, err
}

func printCheck(out io.Writer, set *policy.Set) error {
	warnings := set.Warnings()
	for _, w := range warnings {
		fmt.Fprintln(out, "warning:", w)
	}
	for _, name := range set.Tenants() {
		rules := set.Rules(name)
		line := name + ":"
		for i, r := range rules {
			plan, _ := set.Profile(r.Profile)
			if i > 0 {
				line += ";"
			}
			line += " " + r.Match + " -> " + r.Profile + " (" + summary(&plan) + ")"
			if r.Match == policy.Everything {
				break // what follows is never reached
			}
		}
		fmt.Fprintln(out, line)
	}
	if _, ok := set.Resolve("a tenant that nobody names"); !ok {
		fmt.Fprintln(out, "tenants that are not named: denied (add a tenant", policy.UnknownTenant, "to serve them)")
	}
	_, err := fmt.Fprintf(out, "ok: %s, %s, %s, version %.12s\n", plural(len(set.Tenants()), "tenant"),
		plural(len(set.Profiles()), "profile"), plural(len(warnings), "warning"), set.Version())
	return err
}

// summary says in a few words what a profile does.
func summary(p *policy.Profile) string {
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

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.Itoa(n) + " " + noun
}
