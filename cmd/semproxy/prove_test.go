package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/semproxy/semproxy/cmd/semproxy/prove"
	"github.com/semproxy/semproxy/sidecar/sidecartest"
	"github.com/semproxy/semproxy/transport/page"
)

// runProve runs the command as a process.
func runProve(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, append([]string{"prove"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal("the command did not start")
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func TestProveASidecarThatHoldsItsLimits(t *testing.T) {
	url := natsServer(t)
	startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	out, errs, code := runProve(t, "--nats-url", url, "--tenant", "acme", "--max-ratio", "0.52", "--max-error", "0.4", "--rounds", "2", "--json")
	var p prove.Proof
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v\n%s%s", code, err, out, errs)
	}
	if !p.OK || p.Pages != 2 || p.Outcome != "compressed" || p.Profile != "half" || p.Ratio < 0.4 || p.Ratio > 0.52 || p.AttentionError == nil ||
		*p.AttentionError < 0.1 || *p.AttentionError > 0.4 || p.LatencyMax < p.LatencyP50 || p.LatencyP50 <= 0 || p.StoredP50 <= 0 || p.Device == "" {
		t.Errorf("got %s", out)
	}
	out, errs, code = runProve(t, "--nats-url", url, "--tenant", "globex", "--page", "kjv_facts", "--rounds", "1")
	if code != 0 || !strings.Contains(out, "proved") || !strings.Contains(out, "quarter") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

func TestProveFailsOverALimitAndNamesIt(t *testing.T) {
	url := natsServer(t)
	startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"ratio", []string{"--tenant", "acme", "--max-ratio", "0.3"}, []string{"prove.ratio: 0.49", "the most is 0.3000"}},
		{"a policy that compresses nothing", []string{"--tenant", "other"}, []string{"prove.ratio: 1.0000", "profile exact", "--max-ratio 1"}},
		{"attention error", []string{"--tenant", "acme", "--max-error", "0.01"}, []string{"prove.attention_error: ", "the most is 0.0100"}},
		{"latency", []string{"--tenant", "acme", "--max-latency", "1us"}, []string{"prove.latency: "}},
		{"a page without queries", []string{"--tenant", "acme", "--page", queryless(t)}, []string{"prove.attention_error: ", "--max-error 0"}},
	} {
		out, errs, code := runProve(t, append([]string{"--nats-url", url, "--rounds", "1"}, c.args...)...)
		if code != 1 || !strings.Contains(out, "FAILED") {
			t.Errorf("%s: exit code %d, want 1\n%s%s", c.name, code, out, errs)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: the error does not say %q:\n%s", c.name, want, errs)
			}
		}
	}
	if out, errs, code := runProve(t, "--nats-url", url, "--rounds", "1", "--tenant", "other", "--max-ratio", "1"); code != 0 || !strings.Contains(out, "exact") {
		t.Errorf("a pass-through that is meant: exit code %d\n%s%s", code, out, errs)
	}
}

// queryless is a file of a page that nothing can be measured with.
func queryless(t *testing.T) string {
	t.Helper()
	blob := sidecartest.Edited(t, func(p *page.Page) { p.Q, p.QDType, p.QHeads, p.Window = nil, 0, 0, 0 })
	file := filepath.Join(t.TempDir(), "page.safetensors")
	if err := os.WriteFile(file, blob, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestProveWaitsForTheSidecarAndSaysWhatFor(t *testing.T) {
	url := natsServer(t)
	log := &lockedBuffer{}
	cmd := exec.Command(program, "prove", "--nats-url", url, "--tenant", "acme", "--rounds", "1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	sidecartest.Until(t, "it says that it waits", func() bool { return strings.Contains(log.String(), "waiting for the sidecar") })
	startProcess(t, "--nats-url", url, "--policy-path", demoPolicy)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, log)
		}
	case <-time.After(time.Minute):
		t.Error("a minute passed")
	}
	if !strings.Contains(log.String(), "no semproxy listens") {
		t.Errorf("it does not say what it waits for:\n%s", log)
	}
}

func TestProveWithoutASidecarFailsInTime(t *testing.T) {
	for name, url := range map[string]string{"no sidecar": natsServer(t), "no NATS server": "nats://user:hunter2@127.0.0.1:1"} {
		out, errs, code := runProve(t, "--nats-url", url, "--tenant", "acme", "--timeout", "300ms")
		if code != 1 || !strings.Contains(errs, "prove.unreachable: no sidecar answered tenant acme") || !strings.Contains(out, "no answer in") || strings.Contains(out+errs, "hunter2") {
			t.Errorf("%s: exit code %d\n%s%s", name, code, out, errs)
		}
	}
}

func TestProveThroughAServerWithShortMessagesSplitsThePage(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: 1 << 20, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	startProcess(t, "--nats-url", s.ClientURL(), "--policy-path", demoPolicy)
	out, errs, code := runProve(t, "--nats-url", s.ClientURL(), "--tenant", "initech", "--rounds", "1", "--json")
	var p prove.Proof
	if err := json.Unmarshal([]byte(out), &p); err != nil || code != 0 || p.Pages != 3 {
		t.Errorf("exit code %d, %d pages, want 0 and two layers in each of 3\n%s%s", code, p.Pages, out, errs)
	}
}

func TestProveSpeaksAsTheTenantsUserOfTheSidecarsOwnServer(t *testing.T) {
	dir := t.TempDir()
	users := filepath.Join(dir, "users.yaml")
	text := "users:\n  - { name: globex-engine, password: swordfish-globex, tenant: globex }\n  - { name: acme-engine, password: swordfish-acme, tenant: acme }\n"
	if err := os.WriteFile(users, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sidecar := startProcess(t, "--nats-embedded-listen", "127.0.0.1:0", "--nats-embedded-users-file", users, "--policy-path", demoPolicy)
	var url string
	sidecartest.Until(t, "the log names the server", func() bool {
		m := regexp.MustCompile(`"nats":"([^"]+)"`).FindStringSubmatch(sidecar.log.String())
		if m != nil {
			url = m[1]
		}
		return m != nil
	})
	out, errs, code := runProve(t, "--nats-url", url, "--nats-embedded-users-file", users, "--tenant", "acme", "--rounds", "1")
	if code != 0 || strings.Contains(out+errs, "swordfish") {
		t.Errorf("exit code %d\n%s%s\nsidecar:\n%s", code, out, errs, sidecar.log)
	}
	_, errs, code = runProve(t, "--nats-url", url, "--nats-embedded-users-file", users, "--tenant", "initech")
	if code != 1 || !strings.Contains(errs, "no user speaks for tenant initech") {
		t.Errorf("a tenant without a user: exit code %d\n%s", code, errs)
	}
	_, errs, code = runProve(t, "--nats-url", url, "--tenant", "acme", "--timeout", "300ms")
	if code != 1 || !strings.Contains(errs, "prove.unreachable") {
		t.Errorf("without logging in: exit code %d\n%s", code, errs)
	}
}

func TestProveSpeaksAsATenantOfANATSSystemThatKeepsTenantsApart(t *testing.T) {
	for _, mode := range []string{"accounts", "users"} {
		system := configured(t, mode, 1)
		args := []string{"--nats-url", system.url, "--nats-nkey-file", filepath.Join(system.dir, "SEMPROXY.nk"), "--policy-path", demoPolicy}
		if system.private {
			args = append(args, "--nats-private-inboxes")
		}
		startProcess(t, args...)
		out, errs, code := runProve(t, "--nats-url", system.url, "--nats-nkey-file", filepath.Join(system.dir, "acme.nk"), "--tenant", "acme", "--rounds", "1")
		if code != 0 || !strings.Contains(out, "proved") {
			t.Errorf("%s: exit code %d\n%s%s", mode, code, out, errs)
		}
		_, errs, code = runProve(t, "--nats-url", system.url, "--nats-nkey-file", filepath.Join(system.dir, "acme.nk"), "--tenant", "globex", "--timeout", "1s")
		if code != 1 || !strings.Contains(errs, "prove.") {
			t.Errorf("%s, as another tenant: exit code %d, want 1\n%s", mode, code, errs)
		}
	}
}

func TestProveRefusesFlagsWithoutMeaning(t *testing.T) {
	for want, args := range map[string][]string{
		"--tenant is required":                  {},
		"--tenant must be":                      {"--tenant", "a.b"},
		"--max-ratio must be in (0, 1], got 0":  {"--tenant", "a", "--max-ratio", "0"},
		"--max-ratio must be in (0, 1], got Na": {"--tenant", "a", "--max-ratio", "NaN"},
		"--rounds must be from 1":               {"--tenant", "a", "--rounds", "0"},
		"--page must be one of kjv":             {"--tenant", "a", "--page", "nowhere"},
		"page.truncated":                        {"--tenant", "a", "--page", "prove_test.go"},
	} {
		if _, err := cli(t, append([]string{"prove"}, args...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestCoresThatAreNotThePagesAreFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cores.safetensors")
	if _, err := cli(t, "compress", demoFile, "-o", file, "--ratio", "0.5"); err != nil {
		t.Fatal(err)
	}
	sent, err := page.Decode(sidecartest.Page(t, "kjv"), page.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	sent.Protect = make([]byte, sent.Tokens)
	sent.Protect[0] = 1
	for name, c := range map[string]struct {
		change func(*page.Cores)
		want   string
	}{
		"those of the page":   {func(*page.Cores) {}, ""},
		"of another sequence": {func(c *page.Cores) { c.Sequence = "other" }, "of sequence other"},
		"of other layers":     {func(c *page.Cores) { c.LayerFirst++ }, "are of sequence"},
		"of more tokens":      {func(c *page.Cores) { c.Tokens++ }, "tokens"},
		"a token was changed": {func(c *page.Cores) { c.K[0] ^= 1 }, "stands for token 0 alone and has another key"},
		"a token was moved":   {func(c *page.Cores) { c.Positions[2] ^= 1 }, "at the position of none"},
		"a bias is no log":    {func(c *page.Cores) { c.Bias[3] ^= 0x40 }, "the bias is"},
		"a protected value":   {func(c *page.Cores) { c.V[1] ^= 1 }, "stands for token 0 alone and has another value"},
		"heads that it lacks": {func(c *page.Cores) { c.KVHeads-- }, "heads"},
		"of another model":    {func(c *page.Cores) { c.Model += "x" }, "are of sequence"},
		"of later tokens":     {func(c *page.Cores) { c.TokenFirst++ }, "are of sequence"},
		"of other dimensions": {func(c *page.Cores) { c.HeadDim-- }, "dimensions"},
	} {
		blob, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		cores, err := page.DecodeCores(blob, page.DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		c.change(cores)
		err = prove.Belongs(sent, cores)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
