package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What calibrate prints is a key of a profile, for the model that it was measured on.
func TestCalibratePrintsHeadWeightsForAPolicy(t *testing.T) {
	dir := t.TempDir()
	weights := filepath.Join(dir, "weights.yaml")
	if out, err := runCommand(t, "calibrate", "--texts", "2", "--tokens", "400", "--out", weights); err != nil || out != "" {
		t.Fatalf("got %v and %q, want nothing printed beside the file", err, out)
	}
	raw, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	said, key, _ := strings.Cut(string(raw), "\n")
	if !strings.Contains(said, "5 layers of 2 KV heads") || strings.Count(key, "\n  - [") != 5 || strings.Count(key, ",") != 5 {
		t.Fatalf("got\n%s\nwant weights for 5 layers of 2 heads", raw)
	}
	file := filepath.Join(dir, "policy.yaml")
	policy := "apiVersion: semproxy.io/v1\nprofiles:\n  mine:\n    method: weighted\n    " + strings.ReplaceAll(strings.TrimSpace(key), "\n", "\n    ") +
		"\ntenants:\n  acme:\n    rules:\n      - profile: mine\n"
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runCommand(t, "policy", "check", file); err != nil {
		t.Errorf("the policy with these weights: %v\n%s\n%s", err, out, policy)
	}
}

// With --loss it is a key of a guard, after a table of what was measured.
func TestCalibratePrintsALossCurveForAGuard(t *testing.T) {
	out, err := runCommand(t, "calibrate", "--loss", "--texts", "8")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "8 texts with 48 facts") || strings.Count(out, "#   budget ") != 14 {
		t.Errorf("got\n%s\nwant the facts and a line for each budget and ratio", out)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	policy := "apiVersion: semproxy.io/v1\nprofiles:\n  mine:\n    method: weighted\n    guard:\n      maxFactsLost: 0.05\n      " +
		strings.ReplaceAll(strings.TrimSpace(out), "\n", "\n      ") + "\ntenants:\n  acme:\n    rules:\n      - profile: mine\n"
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runCommand(t, "policy", "check", file); err != nil {
		t.Errorf("the policy with this curve: %v\n%s\n%s", err, out, policy)
	}
}

func TestCalibrateRefusesTextsThatSayNothing(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--tokens", "128"}, "give longer texts"},
		{[]string{"--tokens", "100000"}, "more than the model's context"},
		{[]string{"--ratio", "0"}, "--ratio must be in"},
		{[]string{"--loss", "--ratio", "0.5"}, "leave --ratio out"},
		{[]string{"--loss", "--texts", "2"}, "give more texts"},
		{[]string{"--model", "Org/Name"}, "on the hub"},
	} {
		if _, err := runCommand(t, append([]string{"calibrate"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.args, err, c.want)
		}
	}
}
