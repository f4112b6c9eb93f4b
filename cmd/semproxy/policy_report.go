package main

import (
	"fmt"
	"io"

	"github.com/semproxy/semproxy/cmd/semproxy/show"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/strict"
)

// policyReport is what "semproxy policy check" says; its JSON form is stable.
type policyReport struct {
	OK       bool            `json:"ok"`
	Problems []policyProblem `json:"problems"`
	Warnings []string        `json:"warnings"`
	Tenants  []policyTenant  `json:"tenants"`
	Profiles int             `json:"profiles"`
	Unknown  string          `json:"unknown,omitempty"` // what becomes of tenants that nobody names
	Version  string          `json:"version,omitempty"`

	lines []string // problems for a person
}

type policyProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

type policyTenant struct {
	Tenant string       `json:"tenant"`
	Rules  []policyRule `json:"rules"` // up to the one that takes everything
}

type policyRule struct {
	Match   string `json:"match"`
	Profile string `json:"profile"`
	Summary string `json:"summary"`
}

// newPolicyReport describes a set, or why there is none.
func newPolicyReport(set *policy.Set, problems []*strict.Error) *policyReport {
	r := &policyReport{OK: len(problems) == 0, Problems: []policyProblem{}, Warnings: []string{}, Tenants: []policyTenant{}}
	for _, p := range problems {
		r.Problems = append(r.Problems, policyProblem{p.File, p.Line, p.Column, p.Path, p.Problem})
		r.lines = append(r.lines, p.Error())
	}
	if !r.OK {
		return r
	}
	for _, w := range set.Warnings() {
		r.Warnings = append(r.Warnings, w.String())
	}
	for _, name := range set.Tenants() {
		t := policyTenant{Tenant: name, Rules: []policyRule{}}
		for _, rule := range set.Rules(name) {
			plan, _ := set.Profile(rule.Profile)
			t.Rules = append(t.Rules, policyRule{rule.Match, rule.Profile, summary(&plan)})
			if rule.Match == policy.Everything {
				break // what follows is never reached
			}
		}
		r.Tenants = append(r.Tenants, t)
	}
	if _, ok := set.Resolve("a tenant that nobody names"); !ok {
		r.Unknown = "denied"
	}
	r.Profiles, r.Version = len(set.Profiles()), set.Version()
	return r
}

func (r *policyReport) write(w io.Writer) error {
	for _, line := range r.lines {
		fmt.Fprintln(w, line)
	}
	if !r.OK {
		return nil
	}
	for _, text := range r.Warnings {
		fmt.Fprintln(w, "warning:", text)
	}
	for _, t := range r.Tenants {
		line := t.Tenant + ":"
		for i, rule := range t.Rules {
			if i > 0 {
				line += ";"
			}
			line += " " + rule.Match + " -> " + rule.Profile + " (" + rule.Summary + ")"
		}
		fmt.Fprintln(w, line)
	}
	if r.Unknown != "" {
		fmt.Fprintln(w, "tenants that are not named: denied (add a tenant", policy.UnknownTenant, "to serve them)")
	}
	_, err := fmt.Fprintf(w, "ok: %s, %s, %s, version %.12s\n", show.Plural(len(r.Tenants), "tenant"),
		show.Plural(r.Profiles, "profile"), show.Plural(len(r.Warnings), "warning"), r.Version)
	return err
}
