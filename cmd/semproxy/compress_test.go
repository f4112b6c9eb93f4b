package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semproxy/semproxy/pipeline"
	"github.com/semproxy/semproxy/policy"
	"github.com/semproxy/semproxy/transport/page"
)

const demoFile = "../../configs/demo/kjv.page.safetensors"

func TestCompressWritesCoresAndAReport(t *testing.T) {
	out := filepath.Join(t.TempDir(), "kjv.cores.safetensors")
	report, err := cli(t, "compress", demoFile, "-o", out, "--ratio", "0.25", "--budget", "equal")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	cores, err := page.DecodeCores(blob, page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if cores.Cores != 160 || cores.Tokens != 640 {
		t.Errorf("%d cores for %d tokens, want 160 for 640", cores.Cores, cores.Tokens)
	}
	for _, want := range []string{" of 640 per head", "attention error", "key similarity", "profile flags", out} {
		if !strings.Contains(report, want) {
			t.Errorf("the report does not say %q:\n%s", want, report)
		}
	}
}

func TestCompressByPolicyWithJSONReport(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	report, err := cli(t, "compress", demoFile, "-o", out, "--policy", "../../configs/policies/demo.yaml", "--tenant", "globex", "--report", "json")
	if err != nil {
		t.Fatal(err)
	}
	var r pipeline.Report
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	if r.Rule != "tenants.globex.rules[0]" || r.Ratio > 0.25 || r.Ratio < 0.245 || !r.Measured {
		t.Errorf("rule %q, ratio %v, measured %v", r.Rule, r.Ratio, r.Measured)
	}
}

func TestCompressByEveryMethodAndInEightBits(t *testing.T) {
	for _, m := range policy.Methods() {
		out := filepath.Join(t.TempDir(), "out")
		args := []string{"compress", demoFile, "-o", out, "--method", string(m), "--ratio", "0.25"}
		if m != policy.MethodNone {
			args = append(args, "--fp8")
		}
		report, err := cli(t, args...)
		if err != nil {
			t.Errorf("%s: %v", m, err)
			continue
		}
		blob, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		cores, err := page.DecodeCores(blob, page.DefaultLimits())
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		want := page.F8E4M3
		if m == policy.MethodNone {
			want = page.F16
		}
		if cores.DType != want || (cores.Dropped != nil) != m.Evicts() || strings.Contains(report, "dropped") != m.Evicts() {
			t.Errorf("%s: %v, dropped %v, want %v, %v; the report:\n%s", m, cores.DType, cores.Dropped != nil, want, m.Evicts(), report)
		}
	}
}

func TestCompressByAPolicyThatProtectsTexts(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(rules, []byte(`apiVersion: semproxy.io/v1
profiles: { names: { method: semantic, protect: { patterns: [ Bethel ] } } }
tenants: { acme: { rules: [ { profile: names } ] } }
`), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"compress", demoFile, "-o", filepath.Join(dir, "out"), "--policy", rules, "--tenant", "acme"}
	if _, err := cli(t, args...); err == nil || !strings.Contains(err.Error(), "policy.no_tokenizer") {
		t.Errorf("without a tokenizer: %v, want policy.no_tokenizer", err)
	}
	if _, err := cli(t, append(args, "--tokenizer", "../../configs/demo/tokenizer.json")...); err != nil {
		t.Errorf("with the tokenizer: %v", err)
	}
}

func TestCompressRefusesBadInput(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile(demoFile)
	if err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(dir, "truncated")
	if err := os.WriteFile(truncated, good[:1000], 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	for want, args := range map[string][]string{
		"page.truncated":                {"compress", truncated, "-o", out},
		"must be in (0,1]":              {"compress", demoFile, "-o", out, "--ratio", "1.5"},
		"no such file":                  {"compress", filepath.Join(dir, "nothing"), "-o", out},
		"[policy tenant]":               {"compress", demoFile, "-o", out, "--policy", "x.yaml"},
		"must be one of none":           {"compress", demoFile, "-o", out, "--method", "best"},
		"no meaning with method window": {"compress", demoFile, "-o", out, "--method", "window", "--budget", "equal"},
		"no meaning with method none":   {"compress", demoFile, "-o", out, "--method", "none", "--fp8"},
		"must be 4, 8 or 16":            {"compress", demoFile, "-o", out, "--bits", "5"},
		"[fp8 policy]":                  {"compress", demoFile, "-o", out, "--policy", "x.yaml", "--tenant", "a", "--fp8"},
		"text, json or yaml":            {"compress", demoFile, "-o", out, "--report", "xml"},
		"policy.denied":                 {"compress", demoFile, "-o", out, "--policy", onlyAcme(t), "--tenant", "globex"},
		"tokenizer of \"*\"":            {"compress", demoFile, "-o", out, "--tokenizer", truncated},
	} {
		if _, err := cli(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("semproxy %s: %v, want %q", strings.Join(args, " "), err, want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("semproxy %s left a file", strings.Join(args, " "))
		}
	}
}

func onlyAcme(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "acme.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: semproxy.io/v1\ntenants: { acme: { rules: [ { profile: exact } ] } }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheReportsFormatIsThatOfAllCommands(t *testing.T) {
	out := filepath.Join(t.TempDir(), "cores.safetensors")
	for format, want := range map[string]string{"json": `"PolicyDigest"`, "yaml": "PolicyDigest:", "table": "key similarity"} {
		if got, err := cli(t, "compress", demoFile, "--out", out, "-o", format); err != nil || !strings.Contains(got, want) {
			t.Errorf("-o %s: got %v and %.200s", format, err, got)
		}
		if _, err := os.Stat(format); err == nil {
			t.Errorf("-o %s wrote a file of that name", format)
		}
	}
	if got, err := cli(t, "version", "-o", "json"); err != nil || !strings.Contains(got, `"version"`) {
		t.Errorf("version -o json: got %q, %v", got, err)
	}
	if got, err := cli(t, "--version"); err != nil || !strings.HasPrefix(got, "semproxy ") {
		t.Errorf("--version: got %q, %v", got, err)
	}
}

// What is no file may never end.
func TestAPageFromAPipeIsBounded(t *testing.T) {
	for size, want := range map[int]string{1000: "", page.MaxPiped + 1: "page.too_large"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = w.Write(make([]byte, size))
			_ = w.Close()
		}()
		blob, err := page.ReadFile(fmt.Sprintf("/dev/fd/%d", r.Fd()))
		_ = r.Close()
		<-written
		if want == "" && (err != nil || len(blob) != size) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d bytes: got %d, %v, want %q", size, len(blob), err, want)
		}
	}
}
