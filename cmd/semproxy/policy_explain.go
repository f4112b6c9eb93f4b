package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/policy"
)

// explainFlags are the flags of policy explain.
type explainFlags struct {
	paths   []string
	request policy.Request
	headers []string // "Name: value"
	output  string
}

// explanation is what policy explain -o json prints.
type explanation struct {
	Tenant string        `json:"tenant"`
	Model  string        `json:"model"`
	Tokens int           `json:"tokens"`
	Steps  []policy.Step `json:"steps"` // what was tried, in order; the last one decided

	Decision *policy.Decision `json:"decision,omitempty"` // absent when the tenant is denied
	Limits   *policy.Limits   `json:"limits,omitempty"`
	Error    string           `json:"error,omitempty"`
	Code     string           `json:"code,omitempty"`
}

func newPolicyExplainCommand() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --tenant NAME",
		Short: "Show which rule decides for a request, why, and what its profile means",
		Long: `Show the decision for one request: every rule that is tried and why it matches or not, the file and line of
the one that decides, and its profile with every default filled in. Exits non-zero when the tenant is denied.`,
		Example: `  semproxy policy explain --policy configs/policies/example.yaml --tenant acme --model llama-3-8b --tokens 9000
  semproxy policy explain --policy /etc/semproxy/policies --tenant acme --tokens 100 -o json`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.paths, "policy", nil, "policy file or directory, may be repeated (default $"+policyPathEnv+")")
	flags.StringVar(&f.request.Tenant, "tenant", "", "tenant that asks")
	flags.StringVar(&f.request.Model, "model", "", "model that the page belongs to")
	flags.IntVar(&f.request.Tokens, "tokens", 0, "length of the sequence in tokens")
	flags.StringArrayVar(&f.headers, "header", nil, "header of the request, \"Name: value\", may be repeated")
	show.Flag(cmd, &f.output)
	cmd.Flags().Lookup("output").Value.(*show.Choice).Also = "text"         // an older name of table
	_ = cmd.RegisterFlagCompletionFunc("tenant", completeTenants(&f.paths)) // the flag exists
	if err := cmd.MarkFlagRequired("tenant"); err != nil {
		panic(err) // the flag is declared above
	}
	return cmd
}

func (f *explainFlags) run(cmd *cobra.Command) error {
	if f.request.Tokens < 0 {
		return fmt.Errorf("--tokens must not be negative, got %d", f.request.Tokens)
	}
	headers := textproto.MIMEHeader{}
	for _, text := range f.headers {
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			return fmt.Errorf("--header must be \"Name: value\", got %q", text)
		}
		headers.Set(name, strings.TrimSpace(value))
	}
	f.request.Header = headers.Get
	paths, err := policyPaths(f.paths)
	if err != nil {
		return err
	}
	set, err := loadPolicy(cmd.ErrOrStderr(), paths)
	if err != nil {
		return err
	}
	e := explanation{Tenant: f.request.Tenant, Model: f.request.Model, Tokens: f.request.Tokens, Steps: set.Explain(f.request)}
	d, denied := set.Decide(f.request)
	if denied == nil {
		limits := set.Limits(f.request.Tenant)
		e.Decision, e.Limits = &d, &limits
	} else {
		e.Error = denied.Error()
		if coded := (*policy.DeniedError)(nil); errors.As(denied, &coded) {
			e.Code = coded.Code()
		}
	}
	if err := show.As(cmd.OutOrStdout(), f.output, &e, e.text); err != nil {
		return err
	}
	return denied
}

func (e *explanation) text(out io.Writer) error {
	fmt.Fprintf(out, "request   tenant %s, model %q, %d tokens\n\ntried\n", e.Tenant, e.Model, e.Tokens)
	for _, s := range e.Steps {
		mark, where := "-", s.Rule
		if s.Matched {
			mark = "*"
		}
		if s.Source != "" {
			where += " (" + s.Source + ")"
		}
		fmt.Fprintf(out, "  %s %s: %s\n", mark, where, s.Why)
	}
	if e.Decision == nil {
		_, err := fmt.Fprintf(out, "\ndenied    %s (%s)\n", e.Error, e.Code)
		return err
	}
	var plan bytes.Buffer
	enc := yaml.NewEncoder(&plan)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(e.Decision.Plan), enc.Close()); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	d := e.Decision
	fmt.Fprintf(out, "\ndecision  profile %s\nrule      %s", d.Profile, d.Rule)
	if d.Source != "" {
		fmt.Fprintf(out, " at %s", d.Source)
	}
	fmt.Fprintf(out, "\nreason    %s\ndigest    %s\nversion   %s\nlimits    %s\n\nprofile\n", d.Reason, d.PolicyDigest, d.Version, e.limits())
	_, err := out.Write(indented(plan.Bytes()))
	return err
}

// limits says in words what the tenant may use.
func (e *explanation) limits() string {
	var all string
	add := func(set bool, what string, value any) {
		if set {
			if all != "" {
				all += ", "
			}
			all += fmt.Sprintf("%s %v", what, value)
		}
	}
	add(e.Limits.PagesPerSecond > 0, "pagesPerSecond", e.Limits.PagesPerSecond)
	add(e.Limits.InFlightBytes > 0, "inFlightBytes", e.Limits.InFlightBytes)
	add(e.Limits.StoredBytes > 0, "storedBytes", e.Limits.StoredBytes)
	add(e.Limits.QueuedBytes > 0, "queuedBytes", e.Limits.QueuedBytes)
	if all == "" {
		return "none"
	}
	return all
}

// indented moves every line two columns to the right.
func indented(text []byte) []byte {
	var out []byte
	for i, c := range text {
		if i == 0 || text[i-1] == '\n' {
			out = append(out, ' ', ' ')
		}
		out = append(out, c)
	}
	return out
}
