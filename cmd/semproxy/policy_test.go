package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/configs/policies"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/policy/schema"
)

// policyFile writes a policy and returns its path.
func policyFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runPolicy executes `semproxy policy ARGS` and returns both outputs.
func runPolicy(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := newPolicyCommand()
	cmd.SilenceErrors = true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	err = cmd.Execute()
	return out.String(), errOut.String(), err
}

func TestPolicyCheckSummarisesAGoodPolicy(t *testing.T) {
	path := policyFile(t, "example.yaml", string(policies.Example))
	got, _, err := runPolicy(t, "check", path)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	for _, want := range []string{
		"acme: requests for model llama-3* of at least 4096 tokens -> balanced (weighted, ratio 0.5, adaptive); ",
		"every request -> exact (keeps every token)\n",
		"research: requests for model */llama-3-8b -> every-knob (weighted, ratio 0.5, adaptive); every other request -> balanced",
		"unknown: every request -> exact (keeps every token)\n",
		"ok: 3 tenants, 4 profiles, 0 warnings, version ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant it to contain %q", got, want)
		}
	}
}

func TestPolicyCheckPrintsEveryMistakeAndFails(t *testing.T) {
	bad := policyFile(t, "tenants.yaml", "apiVersion: semproxy.io/v1\nprofiles:\n  a: { method: semantic, ratio: 1.5 }\ntenants:\n  acme: { rulez: [] }\n")
	got, _, err := runPolicy(t, "check", bad)
	want := bad + ":3:26: profiles.a.ratio: must be in (0,1], got 1.5\n" + bad + ":5:11: tenants.acme.rulez: unknown key, did you mean \"rules\"?\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err == nil || err.Error() != "the policy has 2 mistakes" {
		t.Errorf("got error %v, want a count", err)
	}
}

func TestPolicyCheckWarnsWithoutFailing(t *testing.T) {
	path := policyFile(t, "p.yaml", "apiVersion: semproxy.io/v1\nprofiles:\n  a: { method: semantic, ratio: 0.1 }\ntenants:\n  acme: { rules: [ { profile: a } ] }\n")
	got, _, err := runPolicy(t, "check", filepath.Dir(path))
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	for _, want := range []string{
		"warning: " + path + ":3: profiles.a.ratio: a ratio of 0.1 loses facts; start at 0.5 (unsafe)\n",
		"tenants that are not named: denied", "1 tenant, 3 profiles, 1 warning,",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant it to contain %q", got, want)
		}
	}
}

func TestPolicyPathComesFromTheEnvironment(t *testing.T) {
	t.Setenv(policyPathEnv, "")
	t.Setenv("SEMPROXY_POLICY", "")
	if _, _, err := runPolicy(t, "check"); err == nil || !strings.Contains(err.Error(), policyPathEnv) {
		t.Errorf("got %v, want an error that names %s", err, policyPathEnv)
	}
	t.Setenv(policyPathEnv, policyFile(t, "service.yaml", string(policies.Demo)))
	if got, _, err := runPolicy(t, "check"); err != nil || !strings.Contains(got, "globex") {
		t.Errorf("got %v and\n%s\nwant the service's policy", err, got)
	}
	t.Setenv(policyPathEnv, "")
	t.Setenv("SEMPROXY_POLICY", policyFile(t, "own.yaml", string(policies.Example))) // an older name
	if got, _, err := runPolicy(t, "check"); err != nil || !strings.Contains(got, "research") {
		t.Errorf("got %v and\n%s\nwant the policy of %s", err, got, policyPathEnv)
	}
}

func TestPolicyExplainShowsTheDecision(t *testing.T) {
	path := policyFile(t, "example.yaml", string(policies.Example))
	got, _, err := runPolicy(t, "explain", "--policy", path, "--tenant", "acme", "--model", "qwen", "--tokens", "9000")
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	example := string(policies.Example)
	at := func(rule string) string { // where it stands
		before, _, found := strings.Cut(example, rule)
		if !found {
			t.Fatalf("the example has no %q", rule)
		}
		return fmt.Sprintf("%s:%d", path, 1+strings.Count(before, "\n"))
	}
	first, second := at("- name: long llama prompts"), at("- match: { minTokens: 512 }")
	for _, want := range []string{
		`request   tenant acme, model "qwen", 9000 tokens`,
		`- tenants.acme.rules[0] (` + first + `): model "qwen" does not match "llama-3*"`,
		`* tenants.acme.rules[1] (` + second + `): 9000 tokens reach minTokens 512`,
		"decision  profile near-duplicates\nrule      tenants.acme.rules[1] at " + second + "\n",
		"limits    pagesPerSecond 2000, inFlightBytes 256MiB, storedBytes 20GiB\n",
		"\n  threshold: 0.95\n", "\n  chunk:\n    min: 64\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant it to contain %q", got, want)
		}
	}
}

func TestPolicyExplainAsJSON(t *testing.T) {
	path := policyFile(t, "demo.yaml", string(policies.Demo))
	out, _, err := runPolicy(t, "explain", "--policy", path, "--tenant", "globex", "--tokens", "864", "-o", "json")
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	var got struct {
		Tokens   int
		Steps    []policy.Step
		Decision policy.Decision
		Limits   struct{ InFlightBytes string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("got %v for\n%s", err, out)
	}
	d := got.Decision
	if got.Tokens != 864 || len(got.Steps) != 1 || d.Profile != "quarter" || d.Plan.Ratio != 0.25 || d.RuleName != "quarter" || got.Limits.InFlightBytes != "256MiB" {
		t.Errorf("got %+v, want profile quarter with ratio 0.25", got)
	}
	if d.PolicyDigest != d.Plan.Digest() {
		t.Errorf("got digest %s, want that of the printed plan, %s", d.PolicyDigest, d.Plan.Digest())
	}
}

func TestPolicyExplainOfADeniedTenant(t *testing.T) {
	path := policyFile(t, "p.yaml", "apiVersion: semproxy.io/v1\ntenants: { acme: {} }\n")
	out, _, err := runPolicy(t, "explain", "--policy", path, "--tenant", "evil")
	var denied *policy.DeniedError
	if !errors.As(err, &denied) || !strings.Contains(out, "(policy.denied)") {
		t.Errorf("got %v and\n%s\nwant policy.denied", err, out)
	}
	out, _, err = runPolicy(t, "explain", "--policy", path, "--tenant", "evil", "-o", "json")
	if err == nil || !strings.Contains(out, `"code": "policy.denied"`) || !json.Valid([]byte(out)) {
		t.Errorf("got %v and\n%s\nwant JSON with the code", err, out)
	}
}

func TestPolicyExplainKeepsItsOutputForTheDecision(t *testing.T) {
	path := policyFile(t, "p.yaml", "oops: 1\n")
	stdout, stderr, err := runPolicy(t, "explain", "--policy", path, "--tenant", "acme", "-o", "json")
	if err == nil || stdout != "" || !strings.Contains(stderr, "oops: unknown key") {
		t.Errorf("got %v, stdout %q, stderr %q; want the mistakes on stderr only", err, stdout, stderr)
	}
}

func TestPolicyRefusesBadArguments(t *testing.T) {
	path := policyFile(t, "demo.yaml", string(policies.Demo))
	for want, args := range map[string][]string{
		`required flag(s) "tenant" not set`:     {"explain", "--policy", path},
		`must be one of table, json, yaml`:      {"explain", "--policy", path, "--tenant", "acme", "-o", "xml"},
		"--tokens must not be negative, got -1": {"explain", "--policy", path, "--tenant", "acme", "--tokens", "-1"},
		"no such file":                          {"check", filepath.Join(t.TempDir(), "missing.yaml")},
		"has no file *.yaml":                    {"check", t.TempDir()},
		"unknown command":                       {"schema", "extra"},
	} {
		if _, _, err := runPolicy(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestPolicySchemaPrintsTheSchema(t *testing.T) {
	want, err := schema.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := runPolicy(t, "schema"); err != nil || got != string(want) {
		t.Errorf("got %v and %d bytes, want the schema's %d", err, len(got), len(want))
	}
}
